/**
 * The types a program is written in. Law: the type of a state names exactly the variables that were added to it so
 * far; branches of a program that bind different variables make these optional in its result.
 */
import type { StandardSchemaV1 } from '@standard-schema/spec';
import type { Backend, OutputLogprob, SelectMethod } from '../backends/backend.ts';
import type { Drawing } from '../engine/types.ts';
import type { Trace } from './trace.ts';

export type Prettify<T> = { [K in keyof T]: T[K] } & {};
type UnionToIntersection<U> = (U extends unknown ? (k: U) => void : never) extends (k: infer I) => void ? I : never;

/** How to sample; what is left out has the run's value, then the backend's default. */
export interface SamplingOptions extends Drawing {
  /** Most tokens to generate. Default 128. */
  maxTokens?: number;
  /** EOS and stop tokens are not allowed before this many tokens. */
  minTokens?: number;
  /** Text that ends the generation; not part of the result. */
  stop?: string | readonly string[];
  signal?: AbortSignal;
  /** Log-probabilities of the generated tokens in `meta(name).logprobs`, with so many alternatives to each. */
  logprobs?: boolean | number;
}

/** Kinds of value that `gen` can be asked for. */
export interface ValueTypes {
  int: number;
  float: number;
  bool: boolean;
  /** A string in double quotes; the value is what stands between them. */
  string: string;
}

/** The constraints of `gen`. */
interface Constraints<Choices, Schema, Type> {
  type: Type;
  /** The whole output matches; no look-around, no back-references. */
  regex: RegExp | string;
  /** Any Standard Schema; its JSON Schema, where it offers one, constrains the output. */
  schema: Schema;
  /** Rules `name ::= …`; the output is derived from `root`. */
  ebnf: string;
  /** A grammar in Lark's notation, rules `name: …`; the output is derived from `start`. */
  lark: string;
  choices: Choices;
}
type Without<C> = { [K in keyof C]?: undefined };
type OneOf<C> = {
  [K in keyof C]: (K extends 'choices' ? SelectOptions : SamplingOptions) & Pick<C, K> & Without<Omit<C, K>>;
}[keyof C];

export type Choices = readonly [string, ...string[]];
/**
 * `gen`'s options; at most one of `type`, `regex`, `schema`, `ebnf`, `lark` and `choices`. One type for all of them, not
 * overloads, so that a mistake is told where it is made.
 */
export type GenOptions<C = Choices, S = StandardSchemaV1, T = keyof ValueTypes> =
  OneOf<Constraints<C, S, T>> | (SamplingOptions & Without<Constraints<C, S, T>>);

export interface SelectOptions extends SamplingOptions {
  /** How options are compared. Default `token_length_normalized`. */
  method?: SelectMethod;
}

declare const V: unique symbol;
/** An expression: an immutable piece of a prompt. `Vars` is the record of variables it binds. */
export interface Expr<out Vars extends object = {}> {
  readonly [V]: Vars;
}
export type Part = string | number | Expr<any>;
export type VarsOf<P extends readonly unknown[]> = Prettify<
  UnionToIntersection<{ [I in keyof P]: P[I] extends Expr<infer B> ? B : {} }[number]> & {}
>;

/** `Vars` with those of `New`, which take the place of others of their names. */
type Bound<Vars, New> = Prettify<Omit<Vars, keyof New> & New>;

export type BlockRole = 'system' | 'user' | 'assistant';

export interface Message {
  role: BlockRole | 'tool';
  content: string;
}

/** What is known about the generation of a variable. */
export interface Meta {
  promptTokens: number;
  completionTokens: number;
  cachedTokens: number;
  finishReason: string;
  /** Of the generated tokens, with the option `logprobs`. */
  logprobs?: OutputLogprob[];
  /** An earlier call had generated it ahead (`Speculative`): no call was made for it, and no tokens were spent. */
  speculated?: true;
  /** Of the options of a `select`, larger is better, where the backend has them. */
  scores?: number[];
}

/** A piece of text as it comes; `name` is the variable it belongs to, null for the program's own text. */
export interface TextEvent<Name extends PropertyKey = string> {
  name: Name | null;
  delta: string;
}

/** Adds to a prompt, as a template tag or as a call. */
export type TagOrCall<Vars extends object> = {
  <P extends readonly Part[]>(strings: TemplateStringsArray, ...parts: P): State<Bound<Vars, VarsOf<P>>>;
  <P extends readonly Part[]>(...parts: P): State<Bound<Vars, VarsOf<P>>>;
};

/** Adds a turn of a role, also as a block: what the body adds to its state stands in that turn. */
export type RoleCall<Vars extends object> = TagOrCall<Vars> & {
  <R>(body: (s: State<Vars>) => R): State<Bound<Vars, Loose<ResultVars<Awaited<R>>>>>;
};

declare const Exactly: unique symbol;

/** A settled prompt: plain values. */
export interface Result<Vars extends object> {
  /** Never there; keeps the compiler from merging the results of branches into the one with the fewest variables. */
  readonly [Exactly]?: (vars: Vars) => Vars;
  readonly vars: Readonly<Vars>;
  get<K extends keyof Vars>(name: K): Vars[K];
  /** The whole prompt with what was generated, as the model saw it where the backend renders text. */
  text(): string;
  messages(): Message[];
  meta(name: keyof Vars): Meta;
}

/**
 * A live prompt. Everything added runs in order, without waiting for it here; awaiting the state settles it. A failed
 * state stays failed: every later `get` or `await` rejects with the same `ProgramError`.
 */
export interface State<Vars extends object> extends TagOrCall<Vars>, PromiseLike<Result<Vars>> {
  append: TagOrCall<Vars>;
  system: RoleCall<Vars>;
  user: RoleCall<Vars>;
  assistant: RoleCall<Vars>;
  get<K extends keyof Vars>(name: K): Promise<Vars[K]>;
  text(): Promise<string>;
  messages(): Promise<Message[]>;
  meta(name: keyof Vars): Promise<Meta>;
  /** `n` prompts that go on from here independently; the common part is computed once. */
  fork<const N extends number>(n: N): Forks<N, Vars>;
  /** A branch per item, side by side; results in the order of the items. */
  forkMap<T, W extends object>(
    items: readonly T[],
    body: (s: State<Vars>, item: T, index: number) => PromiseLike<Result<W>>,
  ): Promise<Result<W>[]>;
  /** Runs `body` on a branch and returns what it returns; this prompt stays as it is. */
  copy<R>(body: (s: State<Vars>) => R): Promise<Awaited<R>>;
  /** Text from the start of this prompt (a branch starts at its fork) until what was added so far is done. */
  stream(): AsyncIterable<TextEvent<keyof Vars>>;
}

/** Branches of a prompt. `join` waits for all; `W` names the variables that were added after the fork. */
export type Forks<N extends number, Vars extends object> = {
  join<W extends object = Vars>(): Promise<Result<W>[]>;
} & (N extends 1
  ? [State<Vars>]
  : N extends 2
    ? [State<Vars>, State<Vars>]
    : N extends 3
      ? [State<Vars>, State<Vars>, State<Vars>]
      : State<Vars>[]);

/** Sampling options are the defaults of every `gen` in the program. */
export interface RunOptions extends SamplingOptions {
  /** Default: that of `setDefaultBackend`. */
  backend?: Backend;
  /** Gets what the run did, as a tree. */
  trace?: Trace;
}

export interface BatchOptions extends RunOptions {
  /** Programs that run at once. Default 64. */
  concurrency?: number;
  onProgress?: (done: number, total: number) => void;
  /** Called with each outcome as it comes; `index` is that of its arguments. */
  onSettled?: (outcome: PromiseSettledResult<Result<any>>, index: number) => void;
  /** Shows a bar where standard error is a terminal. */
  progress?: boolean;
  /** Waits for all and reports each outcome, in place of stopping at the first error (`BatchError`). */
  settled?: boolean;
}

/** A program that runs: await it for its result, or follow its text. Streams start at the beginning, whenever asked for. */
export interface Run<Vars extends object> extends PromiseLike<Result<Vars>> {
  /** Text as it comes: of one variable, or of the whole prompt without the marks of roles. */
  textStream(name?: keyof Vars): AsyncIterable<string>;
  events(): AsyncIterable<TextEvent<keyof Vars>>;
  abort(reason?: unknown): void;
  catch<B = never>(onError?: ((error: any) => B | PromiseLike<B>) | null): Promise<Result<Vars> | B>;
  finally(onEnd?: (() => void) | null): Promise<Result<Vars>>;
}

/** Arguments of a program go by their names: an object, not a text, a number or a list. */
export type NamedArgs = object & { readonly [Symbol.iterator]?: never };

type MaybeArgs<Args> = {} extends Args ? [args?: Args] : [args: Args];
type MaybeArgsAndOptions<Args> = {} extends Args
  ? [args?: Args, options?: RunOptions]
  : [args: Args, options?: RunOptions];

/** A program; calling it on a state adds it to that prompt. */
export interface Program<Args, Vars extends object> {
  <S extends object>(s: State<S>, ...args: MaybeArgs<Args>): State<Bound<S, Vars>>;
  run(...args: MaybeArgsAndOptions<Args>): Run<Vars>;
  runBatch(
    args: readonly Args[],
    options: BatchOptions & { settled: true },
  ): Promise<PromiseSettledResult<Result<Vars>>[]>;
  runBatch(args: readonly Args[], options?: BatchOptions): Promise<Result<Vars>[]>;
  /** The program with some of its arguments given. */
  bind<B extends Partial<Args>>(args: B): Program<Omit<Args, keyof B>, Vars>;
}

export type ResultVars<R> = R extends Result<infer W> ? W : {};
type AllKeys<U> = U extends unknown ? keyof U : never;
type OptionalKeys<U> = U extends unknown ? { [K in keyof U]-?: {} extends Pick<U, K> ? K : never }[keyof U] : never;
type RequiredKeys<U> = Exclude<keyof U, OptionalKeys<U>>;
type ValueAt<U, K extends PropertyKey> = U extends unknown ? (K extends keyof U ? U[K] : never) : never;
/** Variables of every branch: bound by all of them required, bound by some optional. */
export type Loose<U> = Prettify<
  { [K in RequiredKeys<U>]: ValueAt<U, K> } & { [K in Exclude<AllKeys<U>, RequiredKeys<U>>]?: ValueAt<U, K> }
>;
