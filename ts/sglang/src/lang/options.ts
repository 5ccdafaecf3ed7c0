/**
 * Options as they are given, also by programs in JavaScript. Law: a name that is misspelt and a value of a wrong type
 * are errors, since they would limit nothing.
 */
import type { Backend, SelectMethod } from '../backends/backend.ts';
import { SglangError } from '../engine/errors.ts';
import { noOption, optionMeant } from './nearest.ts';
import type { BatchOptions, GenOptions, RunOptions, SamplingOptions, SelectOptions } from './types.ts';

/** What values an option takes, in words and as a test. */
type Kind = readonly [expected: string, accepts: (value: unknown) => boolean];

const isText = (value: unknown) => typeof value === 'string';
const isNumber = (value: unknown) => typeof value === 'number' && !Number.isNaN(value);
const isCount = (value: unknown) => value === Infinity || (Number.isInteger(value) && (value as number) >= 0);
const listOf = (accepts: (value: unknown) => boolean) => (value: unknown) =>
  Array.isArray(value) && value.every(accepts);

const count: Kind = ['a whole number, 0 or more', isCount];
const number: Kind = ['a number', isNumber];
const whole: Kind = ['a whole number', Number.isInteger];
const flag: Kind = ['true or false', (value) => typeof value === 'boolean'];
const text: Kind = ['a string', isText];
const texts: Kind = ['a string or a list of strings', (value) => isText(value) || listOf(isText)(value)];
/** Checked where it is used. */
const any: Kind = ['', () => true];

const methods: Record<SelectMethod, true> = {
  token_length_normalized: true,
  greedy_token_selection: true,
  unconditional_likelihood_normalized: true,
};

const sampling: Record<keyof SamplingOptions, Kind> = {
  maxTokens: count,
  minTokens: count,
  temperature: number,
  topP: number,
  topK: whole,
  minP: number,
  frequencyPenalty: number,
  presencePenalty: number,
  repetitionPenalty: number,
  stop: texts,
  stopTokenIds: ['a list of token ids', listOf(isCount)],
  seed: whole,
  ignoreEos: flag,
  signal: ['an AbortSignal', (value) => value instanceof AbortSignal],
  logprobs: ['true, false or a number of alternatives', (value) => typeof value === 'boolean' || isCount(value)],
};
const select: Record<keyof SelectOptions, Kind> = {
  ...sampling,
  method: [Object.keys(methods).join(' or '), (value) => Object.hasOwn(methods, value as string)],
};
const gen: Record<keyof (GenOptions & SelectOptions), Kind> = {
  ...select,
  type: any,
  regex: ['a RegExp or its source', (value) => value instanceof RegExp || isText(value)],
  schema: ["a Standard Schema, such as zod's", (value) => '~standard' in Object(value)],
  ebnf: text,
  lark: text,
  choices: any,
};
const run: Record<keyof RunOptions, Kind> = {
  ...sampling,
  backend: ['an Engine, a RuntimeEndpoint, an OpenAI or another Backend of sglang', isBackend],
  trace: ['a Trace', (value) => typeof value === 'object' && value !== null],
};
const callback: Kind = ['a function', (value) => typeof value === 'function'];
const batch: Record<keyof BatchOptions, Kind> = {
  ...run,
  concurrency: any,
  onProgress: callback,
  onSettled: callback,
  progress: flag,
  settled: flag,
};
const known = { select, gen, run, batch };

function isBackend(value: unknown): boolean {
  return typeof (value as Partial<Backend> | null)?.stream === 'function';
}

/** Throws where `backend` is none. */
export function checkBackend(where: string, backend: unknown): void {
  checkValue(where, 'backend', backend, run.backend);
}

/**
 * Throws where `options` has a name that options of this kind have not, or a value of a wrong type. `where` begins the
 * message. What a run or a batch is given may be an object with other purposes, too; there only names are wrong that
 * look like one of ours.
 */
export function checkOptions(kind: keyof typeof known, where: string, options: object): void {
  if (typeof options !== 'object' || options === null)
    throw new TypeError(`${where}: options are an object, such as { maxTokens: 16 }, not ${shown(options)}`);
  const kinds: Record<string, Kind> = known[kind];
  const names = Object.keys(kinds);
  for (const [name, value] of Object.entries(options)) {
    if (Object.hasOwn(kinds, name)) {
      if (value !== undefined) checkValue(where, name, value, kinds[name]!);
      continue;
    }
    if ((kind === 'run' || kind === 'batch') && !optionMeant(name, names)) continue;
    throw noOption(where, name, names);
  }
}

function checkValue(where: string, name: string, value: unknown, [expected, accepts]: Kind): void {
  if (accepts(value)) return;
  throw new SglangError('bad_request', `${where}: ${name}: expected ${expected}, got ${shown(value)}`, name);
}

/** A value in an error: briefly, and by its kind where it is none of JSON. */
export function shown(value: unknown): string {
  if (typeof value === 'function') return 'a function';
  if (typeof (value as PromiseLike<unknown> | null)?.then === 'function') return 'a promise (await it first)';
  const named = typeof value === 'object' && value !== null && value.constructor !== Object && !Array.isArray(value);
  const text = named
    ? `an object of ${value.constructor?.name}`
    : typeof value === 'number'
      ? String(value)
      : (JSON.stringify(value) ?? String(value));
  return text.length <= 60 ? text : `${text.slice(0, 57)}…`;
}
