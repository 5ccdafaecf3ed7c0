/**
 * Checks of request fields. A check returns the value with its type, or throws a `bad_request` that names the field,
 * what was expected and what was got. In an object null means absent (where a field does not say otherwise), and fields
 * nobody asked for are ignored.
 */
import { SglangError } from '../engine/errors.ts';

export interface Check<T> {
  /** `at` is the path of the value in the request, e.g. `messages[0].role`. */
  (value: unknown, at: string): T;
  /** What the check accepts, in words: `a number in [0, 2]`. */
  readonly expected: string;
}

/** A check of a field that must be there. */
export interface Needed<T> extends Check<T> {
  readonly needed: true;
}

export type Fields = Readonly<Record<string, Check<unknown>>>;

/** What `object(fields)` gives: every field is there, undefined where the request has none or null. */
export type Values<F extends Fields> = {
  [K in keyof F]: F[K] extends Needed<infer T> ? T : F[K] extends Check<infer T> ? T | undefined : never;
};

function refuse(at: string, expected: string, value: unknown): never {
  throw new SglangError('bad_request', `${at}: expected ${expected}, got ${show(value)}`, at);
}

function show(value: unknown): string {
  const text = typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? String(value));
  return text.length <= 60 ? text : `${text.slice(0, 57)}...`;
}

function leaf<T>(expected: string, accepts: (value: unknown) => value is T): Check<T> {
  const check = (value: unknown, at: string) => (accepts(value) ? value : refuse(at, expected, value));
  return Object.assign(check, { expected });
}

export const string = leaf('a string', (value): value is string => typeof value === 'string');
export const boolean = leaf('true or false', (value): value is boolean => typeof value === 'boolean');
export const record = leaf('an object', isRecord);

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A number in [min, max], or in (min, max] with `above`. */
export function number(min: number, max: number, options: { above?: boolean } = {}): Check<number> {
  const isInside = (value: number) => (options.above ? value > min : value >= min) && value <= max;
  return leaf(
    `a number ${range(min, max, options.above)}`,
    (value): value is number => typeof value === 'number' && isInside(value),
  );
}

/** A whole number in [min, max]. */
export function integer(min: number, max = Infinity): Check<number> {
  return leaf(
    `a whole number ${range(min, max)}`,
    (value): value is number => Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max,
  );
}

function range(min: number, max: number, above = false): string {
  if (max === Infinity) return `${above ? '>' : '≥'} ${min}`;
  return `in ${above ? '(' : '['}${min}, ${max}]`;
}

export function oneOf<const T extends string>(...choices: T[]): Check<T> {
  const expected = choices.map((choice) => `"${choice}"`).join(' or ');
  return leaf(expected, (value): value is T => choices.includes(value as T));
}

export function listOf<T>(item: Check<T>, plural: string): Check<T[]> {
  const expected = `a list of ${plural}`;
  const check = (value: unknown, at: string) =>
    Array.isArray(value) ? value.map((entry, i) => item(entry, `${at}[${i}]`)) : refuse(at, expected, value);
  return Object.assign(check, { expected });
}

/** The first check that accepts. Where one alone got further into the value than its outside, its error is the one told. */
export function either<const C extends Check<unknown>[]>(...checks: C): Check<ReturnType<C[number]>> {
  const expected = checks.map((check) => check.expected).join(' or ');
  const check = (value: unknown, at: string) => {
    const inside: SglangError[] = [];
    for (const candidate of checks) {
      try {
        return candidate(value, at) as ReturnType<C[number]>;
      } catch (error) {
        if (!(error instanceof SglangError) || error.code !== 'bad_request') throw error;
        if (error.param !== at) inside.push(error);
      }
    }
    if (inside.length === 1) throw inside[0];
    return refuse(at, expected, value);
  };
  return Object.assign(check, { expected });
}

export function object<const F extends Fields>(fields: F): Check<Values<F>> {
  const check = (value: unknown, at: string) => {
    const source = record(value, at || 'the body');
    const read = ([name, field]: [string, Check<unknown>]) => [name, present(source[name], join(at, name), field)];
    return Object.fromEntries(Object.entries(fields).map(read)) as Values<F>;
  };
  return Object.assign(check, { expected: 'an object' });
}

/** A field whose null says `meaning`. */
export function nullMeans<T>(meaning: T, check: Check<T>): Check<T> {
  return Object.assign((value: unknown, at: string) => check(value, at), { expected: check.expected, ofNull: meaning });
}

function present(value: unknown, at: string, check: Check<unknown>): unknown {
  if (value === null && 'ofNull' in check) return check.ofNull;
  if (value !== undefined && value !== null) return check(value, at);
  if ('needed' in check) throw new SglangError('bad_request', `${at}: missing; expected ${check.expected}`, at);
  return undefined;
}

function join(at: string, name: string): string {
  return at ? `${at}.${name}` : name;
}

export function needed<T>(check: Check<T>): Needed<T> {
  const same = (value: unknown, at: string) => check(value, at);
  return Object.assign(same, { expected: check.expected, needed: true as const });
}

/** A field of the API whose function does not exist: refused unless it asks for nothing. */
export const notYet: Check<undefined> = Object.assign(
  (value: unknown, at: string) => {
    const asksNothing = value === false || value === '' || (Array.isArray(value) && value.length === 0);
    if (asksNothing) return undefined;
    throw new SglangError('unsupported', `${at}: not supported yet`, at);
  },
  { expected: 'nothing' },
);

/** The largest number the engine takes for counts, ids and priorities. */
export const limit = 2 ** 31 - 1;

/** How a request stands to others. */
export const standing = { priority: integer(-limit, limit), cache_salt: string };

export function standingOf({ priority, cache_salt: cacheSalt }: Values<typeof standing>) {
  return { priority, cacheSalt };
}

/** Token ids as they are on the wire; `withinVocabulary` checks them against a model. */
export const tokenIds = listOf(integer(0, limit), 'token ids');

export function withinVocabulary(ids: readonly number[], vocabSize: number, at: string): readonly number[] {
  const bad = ids.findIndex((id) => id >= vocabSize);
  if (bad < 0) return ids;
  const place = `${at}[${bad}]`;
  throw new SglangError(
    'bad_request',
    `${place}: token id ${ids[bad]} is not in the vocabulary of ${vocabSize}`,
    place,
  );
}
