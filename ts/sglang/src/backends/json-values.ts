/** Values of models that follow a JSON Schema but no grammar. Law: an object stands around each, as APIs want one. */
import type { Delta, GenMeta, Turn } from './backend.ts';

/** JSON Schemas of the language's types. */
export const valueSchemas = {
  int: { type: 'integer' },
  float: { type: 'number' },
  bool: { type: 'boolean' },
  string: { type: 'string' },
} as const;

/** The schema of `{ "value": … }`. */
export function wrapped(schema: object): object {
  return { type: 'object', properties: { value: schema }, required: ['value'], additionalProperties: false };
}

/** The value of `{ "value": … }`, as JSON. */
export function valueText(text: string): string {
  try {
    return JSON.stringify((JSON.parse(text) as { value?: unknown }).value) ?? text;
  } catch {
    return text;
  }
}

/** The conversation up to a question for one of `choices`. */
export function choiceTurns(turns: readonly Turn[], choices: readonly string[]): Turn[] {
  const options = choices.map((choice) => JSON.stringify(choice)).join(', ');
  const text = `Continue with exactly one of these and nothing else: ${options}`;
  const closed = turns.filter(({ content }) => content.length > 0).map((turn) => ({ ...turn, open: false }));
  return [...closed, { role: 'user', content: [text], open: false }];
}

/** Tokens that an answer to such a question may need. */
export function choiceRoom(choices: readonly string[]): number {
  return 32 + Math.max(...choices.map((choice) => choice.length));
}

/** All pieces as one. */
export async function wholeOf(pieces: AsyncIterable<Delta>): Promise<Required<Delta>> {
  let text = '';
  let meta: GenMeta | undefined;
  for await (const delta of pieces) {
    text += delta.text;
    meta = delta.meta ?? meta;
  }
  return { text, meta: meta! };
}

/** Cuts `begun` off the start of a text that comes in pieces, where it starts so. */
export class Repetition {
  #held = '';
  #begun: string;

  constructor(begun: string) {
    this.#begun = begun;
  }

  /** What can be said of `piece` now. */
  cut(piece: string): string {
    this.#held += piece;
    if (this.#held.length < this.#begun.length && this.#begun.startsWith(this.#held)) return '';
    const text = this.#held.startsWith(this.#begun) ? this.#held.slice(this.#begun.length) : this.#held;
    this.#begun = '';
    this.#held = '';
    return text;
  }

  /** What was held back when the text ended. */
  rest(): string {
    return this.#held;
  }
}
