/** The text of single tokens. */
import type { EngineLike } from './types.ts';

type Detokenizer = Pick<EngineLike, 'tokenize' | 'detokenize'>;

/** A token of an engine that others are read after, with its text. */
const before = new WeakMap<Detokenizer, readonly [id: number, text: string]>();

/** A token's text within a text: alone, one of SentencePiece loses the space that it begins with. */
export function tokenText(engine: Detokenizer, tokenId: number): string {
  const read = (ids: number[]) => engine.detokenize(ids, { skipSpecialTokens: false });
  if (!before.has(engine)) {
    const id = engine.tokenize('a', { addSpecialTokens: false }).at(-1)!;
    before.set(engine, [id, read([id])]);
  }
  const [id, text] = before.get(engine)!;
  return read([id, tokenId]).slice(text.length);
}
