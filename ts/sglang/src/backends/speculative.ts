/**
 * Speculative execution of calls to APIs (SGLang, arXiv 2312.07104, section 5). A generation that ends at a stop string
 * is asked for without it and for some more tokens. Where the program goes on with the same text as the model did, the
 * next generation of the turn is answered by what is already there, and its call is saved.
 *
 * Law: kept text answers only a generation that it holds completely, up to a stop string or to the model's own end, and
 * no place of it answers twice, so samples of equal prompts stay independent.
 */
import type { Backend, Delta, GenerateOptions, GenMeta, Selection, SelectOptions, Turn } from './backend.ts';
import { firstStop, UntilStop } from './stop-strings.ts';

export interface SpeculativeOptions {
  /** Tokens asked for beyond those of the generation. Default 128. */
  tokens?: number;
}

interface Kept {
  /** What must be equal: the prompt up to the text that is generated into, and how it is sampled. */
  readonly key: string;
  /** That text, as the model went on with it. */
  readonly text: string;
  /** Whether the model ended there by itself. */
  readonly ended: boolean;
  readonly tokensPerCharacter: number;
  /** Up to where it was given out. */
  used: number;
}

/** Kept texts at a time; the oldest goes first. */
const MOST_KEPT = 256;
const saved = {
  promptTokens: 0,
  completionTokens: 0,
  cachedTokens: 0,
  finishReason: 'stop',
  speculated: true,
} as const;

/** `backend` with calls saved; `meta(name).speculated` tells which. */
export class Speculative implements Backend {
  readonly kind: string;
  /** Generations that were asked of the backend, and those that needed no call. */
  readonly stats = { calls: 0, savedCalls: 0 };
  readonly #backend: Backend;
  readonly #tokens: number;
  #kept: Kept[] = [];

  constructor(backend: Backend, { tokens = 128 }: SpeculativeOptions = {}) {
    this.kind = `speculative ${backend.kind}`;
    this.#backend = backend;
    this.#tokens = tokens;
  }

  async *stream(turns: readonly Turn[], options: GenerateOptions): AsyncGenerator<Delta, void> {
    const { key, text } = placeOf(turns, options);
    const known = isPlain(options) ? this.#answer(key, text, options) : undefined;
    if (known) {
      this.stats.savedCalls++;
      return yield known;
    }
    this.stats.calls++;
    if (!isPlain(options) || !options.stop?.length) return yield* this.#backend.stream(turns, options);
    yield* this.#ahead(turns, options, key, text);
  }

  select(turns: readonly Turn[], choices: readonly string[], options: SelectOptions): Promise<Selection> {
    return this.#backend.select(turns, choices, options);
  }

  async flushCache(): Promise<void> {
    this.#kept = [];
    await this.#backend.flushCache?.();
  }

  /** Generates beyond the stop string and keeps what follows it. */
  async *#ahead(
    turns: readonly Turn[],
    options: GenerateOptions,
    key: string,
    before: string,
  ): AsyncGenerator<Delta, void> {
    const { stop = [], maxTokens = 128 } = options;
    const until = new UntilStop(stop);
    let all = '';
    let told = 0;
    let meta: GenMeta | undefined;
    for await (const delta of this.#backend.stream(turns, {
      ...options,
      stop: [],
      maxTokens: maxTokens + this.#tokens,
    })) {
      all += delta.text;
      meta = delta.meta ?? meta;
      const text = until.cut(delta.text) + (meta ? until.rest() : '');
      if (text) yield { text };
      told += text.length;
    }
    if (!meta) return;
    const { matched } = until;
    if (matched !== undefined && told > 0) {
      const tokensPerCharacter = meta.completionTokens / all.length;
      const kept = { key, text: before + all, ended: meta.finishReason === 'stop', tokensPerCharacter };
      this.#kept = [...this.#kept, { ...kept, used: before.length + told }].slice(-MOST_KEPT);
    }
    yield { text: '', meta: matched === undefined ? meta : { ...meta, finishReason: 'stop', matched } };
  }

  #answer(key: string, before: string, { stop = [], maxTokens = 128 }: GenerateOptions): Delta | undefined {
    for (const kept of this.#kept) {
      if (kept.key !== key || kept.used > before.length || !kept.text.startsWith(before)) continue;
      const rest = kept.text.slice(before.length);
      const end = firstStop(rest, stop);
      const text = end ? rest.slice(0, end.at) : rest;
      const isWhole = text !== '' && (end !== undefined || kept.ended);
      if (!isWhole || text.length * kept.tokensPerCharacter > maxTokens) continue;
      kept.used = before.length + text.length;
      return { text, meta: { ...saved, matched: end?.matched ?? null } };
    }
    return undefined;
  }
}

/** Whether any text is an answer, and the text is all that is asked for. */
function isPlain({ regex, jsonSchema, ebnf, lark, returnLogprob }: GenerateOptions): boolean {
  return (regex ?? jsonSchema ?? ebnf ?? lark) === undefined && !returnLogprob;
}

function placeOf(turns: readonly Turn[], options: GenerateOptions): { key: string; text: string } {
  const { stop: _s, maxTokens: _m, signal: _a, whole: _w, ...sampling } = options;
  const { role, content } = turns.at(-1)!;
  const last = content.at(-1);
  const text = typeof last === 'string' ? last : '';
  const before = text === '' ? content : content.slice(0, -1);
  return { key: JSON.stringify([turns.slice(0, -1), role, before, sampling]), text };
}
