/**
 * A backend without a model, for tests. Law: the same prompt and options give the same text, in any order and beside
 * any others; everything it was asked for is in `calls`.
 */
import { SglangError } from '../engine/errors.ts';
import { nearestChoice } from '../lang/choices.ts';
import { plainText } from '../lang/prompt.ts';
import type { Backend, Delta, GenerateOptions, GenMeta, Selection, SelectOptions, Turn } from './backend.ts';
import { firstStop } from './stop-strings.ts';

/** What to answer: text, an error to throw, or a function of the prompt. */
export type FakeReply = string | Error | ((prompt: string, options: GenerateOptions) => string | Promise<string>);

export interface FakeOptions {
  /** The pattern that matches nearest to the prompt's end decides; where none does, the text is made from a hash. */
  replies?: readonly (readonly [pattern: string | RegExp, reply: FakeReply])[];
  /** Characters per piece of a stream. Default 4. */
  pieceLength?: number;
}

export interface FakeCall {
  kind: 'stream' | 'select' | 'warm';
  /** The prompt as `plainText` shows it. */
  prompt: string;
  turns: readonly Turn[];
  options: GenerateOptions | SelectOptions;
  choices?: readonly string[];
}

const WORDS = [
  'river',
  'stone',
  'seven',
  'light',
  'north',
  'paper',
  'green',
  'quiet',
  'harbor',
  'copper',
  'winter',
  'field',
];
const HASH_WORDS = 6;
const sampleValues = { int: '42', float: '0.5', bool: 'true', string: '"text"' };

export class FakeBackend implements Backend {
  readonly kind = 'fake';
  readonly calls: FakeCall[] = [];
  readonly #replies: NonNullable<FakeOptions['replies']>;
  readonly #pieceLength: number;

  constructor({ replies = [], pieceLength = 4 }: FakeOptions = {}) {
    this.#replies = replies;
    this.#pieceLength = pieceLength;
  }

  async *stream(turns: readonly Turn[], options: GenerateOptions): AsyncGenerator<Delta, void> {
    const prompt = plainText(turns);
    this.calls.push({ kind: 'stream', prompt, turns, options });
    const reply = (await this.#scripted(prompt, options)) ?? madeUp(prompt, options);
    const { text, ...end } = cut(reply, options);
    for (let at = 0; at < text.length; at += this.#pieceLength) {
      await Promise.resolve();
      options.signal?.throwIfAborted();
      yield { text: text.slice(at, at + this.#pieceLength) };
    }
    yield { text: '', meta: { ...metaOf(prompt, text), ...end } };
  }

  async select(turns: readonly Turn[], choices: readonly string[], options: SelectOptions): Promise<Selection> {
    const prompt = plainText(turns);
    this.calls.push({ kind: 'select', prompt, turns, options, choices });
    const reply = await this.#scripted(prompt, { signal: options.signal });
    const index = reply === undefined ? hash(prompt) % choices.length : nearestChoice(reply, choices);
    return { index, scores: null, meta: metaOf(prompt, '') };
  }

  async warm(turns: readonly Turn[], options: { signal?: AbortSignal }): Promise<void> {
    this.calls.push({ kind: 'warm', prompt: plainText(turns), turns, options });
  }

  async #scripted(prompt: string, options: GenerateOptions): Promise<string | undefined> {
    const ends = this.#replies.map(([pattern]) => lastEnd(prompt, pattern));
    const nearest = Math.max(-1, ...ends);
    if (nearest < 0) return undefined;
    const reply = this.#replies[ends.indexOf(nearest)]![1];
    if (reply instanceof Error) throw reply;
    return typeof reply === 'string' ? reply : reply(prompt, options);
  }
}

/** Where the last match of `pattern` ends; -1 if there is none. */
function lastEnd(text: string, pattern: string | RegExp): number {
  if (typeof pattern === 'string') return text.includes(pattern) ? text.lastIndexOf(pattern) + pattern.length : -1;
  const all = [...text.matchAll(new RegExp(pattern.source, [...new Set(`${pattern.flags}g`)].join('')))];
  return Math.max(-1, ...all.map((match) => match.index + match[0].length));
}

function madeUp(prompt: string, { valueType, jsonSchema, regex, ebnf, lark, seed = 0 }: GenerateOptions): string {
  if (valueType) return sampleValues[valueType];
  if (jsonSchema) return JSON.stringify(sampleOf(JSON.parse(jsonSchema)));
  if (regex ?? ebnf ?? lark)
    throw new SglangError('unsupported', 'FakeBackend makes up no text for a regex or grammar: give it a reply');
  const words = Array.from({ length: HASH_WORDS }, (_, i) => WORDS[hash(`${seed} ${i} ${prompt}`) % WORDS.length]);
  return ` ${words.join(' ')}.`;
}

type Schema = {
  type?: string;
  const?: unknown;
  enum?: unknown[];
  anyOf?: Schema[];
  properties?: Record<string, Schema>;
  minimum?: number;
};

/** The plainest value of a JSON Schema; enough for schemas of records. */
function sampleOf(schema: Schema): unknown {
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return schema.enum[0];
  if (schema.anyOf) return sampleOf(schema.anyOf[0]!);
  const properties = Object.entries(schema.properties ?? {});
  if (schema.type === 'object') return Object.fromEntries(properties.map(([key, value]) => [key, sampleOf(value)]));
  const plainest: Record<string, unknown> = { array: [], string: 'text', boolean: true, null: null };
  return schema.type !== undefined && schema.type in plainest ? plainest[schema.type] : (schema.minimum ?? 1);
}

/** FNV-1a, 32 bits (Fowler, Noll, Vo). */
function hash(text: string): number {
  let state = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) state = Math.imul(state ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return (state ^ (state >>> 15)) >>> 0;
}

/** The reply up to the first stop string and the limit of tokens; a word is a token. */
function cut(
  reply: string,
  { stop = [], maxTokens = 128 }: GenerateOptions,
): Pick<GenMeta, 'finishReason' | 'matched'> & { text: string } {
  const first = firstStop(reply, stop);
  const text = first ? reply.slice(0, first.at) : reply;
  if (tokens(text).length > maxTokens) {
    return { text: tokens(text).slice(0, maxTokens).join(''), finishReason: 'length', matched: null };
  }
  return { text, finishReason: 'stop', matched: first?.matched ?? null };
}

function tokens(text: string): string[] {
  return text.match(/\s*\S+\s*$|\s*\S+/g) ?? [];
}

function metaOf(prompt: string, text: string): GenMeta {
  const counts = { promptTokens: tokens(prompt).length, completionTokens: tokens(text).length, cachedTokens: 0 };
  return { ...counts, finishReason: 'stop', matched: null };
}
