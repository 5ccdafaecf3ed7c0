/**
 * A model in miniature for tests of scoring. Its tokens are the longest pieces of its vocabulary, its log-probability
 * of a token is a table look-up, so the right choice is known by hand.
 */
import type { TokenLogprob } from '../../src/engine/types.ts';

export class LetterModel {
  readonly vocabulary: readonly string[];
  /** Log-probability of a piece after the piece before it; -9 where nothing is said. */
  readonly table: Readonly<Record<string, number>>;

  constructor(pieces: readonly string[], table: Readonly<Record<string, number>>) {
    this.vocabulary = [
      ...new Set([...pieces, ...Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)), '\n']),
    ];
    this.table = table;
  }

  encode(text: string): number[] {
    const ids: number[] = [];
    for (let at = 0; at < text.length;) {
      const fitting = this.vocabulary.filter((piece) => text.startsWith(piece, at));
      const longest = fitting.reduce((a, b) => (b.length > a.length ? b : a));
      ids.push(this.vocabulary.indexOf(longest));
      at += longest.length;
    }
    return ids;
  }

  /** From position `start` on; the first token of all has none. */
  logprobs(ids: readonly number[], start: number): TokenLogprob[] {
    return ids.slice(start).map((tokenId, i) => ({
      tokenId,
      logprob: start + i === 0 ? null : this.#logprob(ids[start + i - 1]!, tokenId),
    }));
  }

  #logprob(before: number, id: number): number {
    const piece = this.vocabulary[id]!;
    return this.table[`${this.vocabulary[before]}>${piece}`] ?? this.table[piece] ?? -9;
  }
}

/** Pieces that merge over the end of a prompt, and options of very different lengths. */
export const tools = new LetterModel(['Use a', ' calculator', 'web', ' browser', ' slide', ' rule', 'Pick', 'x'], {
  ' calculator': -3,
  web: -2,
  ' browser': -2.1,
  ' slide': -2.5,
  ' rule': -0.1,
  'Use a> ': -20,
  ':>x': -1.5,
  ':> rule': -1,
});
