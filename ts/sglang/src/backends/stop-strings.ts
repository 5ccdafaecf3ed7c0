/** Stop strings, found here where the model's server cannot be asked to. */

/** The one of `stop` that is complete first as `text` is written; of those that end together, the longest. */
export function firstStop(text: string, stop: readonly string[]): { at: number; matched: string } | undefined {
  const hits = stop.map((matched) => ({ at: text.indexOf(matched), matched })).filter(({ at }) => at >= 0);
  const endOf = (hit: { at: number; matched: string }) => hit.at + hit.matched.length;
  return hits.sort((a, b) => endOf(a) - endOf(b) || a.at - b.at)[0];
}

/** Ends a text that comes in pieces before the first stop string. */
export class UntilStop {
  /** The stop string that ended the text. */
  matched: string | undefined;
  readonly #stop: readonly string[];
  /** Characters that may be the start of a stop string. */
  readonly #open: number;
  #held = '';

  constructor(stop: readonly string[]) {
    this.#stop = stop;
    this.#open = Math.max(0, ...stop.map((text) => text.length - 1));
  }

  /** What can be said of `piece` now. */
  cut(piece: string): string {
    if (this.matched !== undefined) return '';
    this.#held += piece;
    const end = firstStop(this.#held, this.#stop);
    this.matched = end?.matched;
    const sure = end?.at ?? Math.max(0, this.#held.length - this.#open);
    const text = this.#held.slice(0, sure);
    this.#held = end ? '' : this.#held.slice(sure);
    return text;
  }

  /** What was held back when the text ended. */
  rest(): string {
    return this.#held;
  }
}
