/** The primitives of the language, each an expression. Law: what can be checked is checked here, before anything runs. */
import type { StandardSchemaV1 } from '@standard-schema/spec';
import { SglangError } from '../engine/errors.ts';
import type { ImageInput } from '../engine/types.ts';
import { constraintOf } from './constraint.ts';
import { expr, nodesOf } from './ir.ts';
import { checkOptions, shown } from './options.ts';
import type {
  BlockRole,
  Choices,
  Expr,
  GenOptions,
  Part,
  SamplingOptions,
  SelectOptions,
  ValueTypes,
  VarsOf,
} from './types.ts';

/** The type of a variable by its constraint; `never` is one that was not given. */
type ValueOf<C, S, T> = [C] extends [never]
  ? [S] extends [never]
    ? [T] extends [never]
      ? string
      : ValueTypes[T & keyof ValueTypes]
    : StandardSchemaV1.InferOutput<S & StandardSchemaV1>
  : (C & Choices)[number];

/** Generates text and binds it to `name`. With `choices` it is `select`. */
export function gen<
  const N extends string,
  const C extends Choices = never,
  S extends StandardSchemaV1 = never,
  T extends keyof ValueTypes = never,
>(name: N, options: GenOptions<C, S, T> = {}): Expr<{ [K in N]: ValueOf<C, S, T> }> {
  checkName(name);
  checkOptions('gen', `gen("${name}")`, options);
  const { choices, type: _t, regex: _r, schema: _s, ebnf: _e, lark: _l, ...sampling } = options;
  const constraint = constraintOf(name, options);
  if (!choices) return expr({ kind: 'gen', name, options: sampling, constraint });
  if (Object.keys(constraint.grammar).length > 0) {
    throw new SglangError(
      'bad_request',
      `gen("${name}"): choices exclude type, regex, schema, ebnf and lark`,
      'choices',
    );
  }
  return select(name, choices, sampling) as Expr<never>;
}

/** Binds to `name` the one of `choices` that continues the prompt best. */
export function select<const N extends string, const C extends Choices>(
  name: N,
  choices: C,
  options: SelectOptions = {},
): Expr<{ [K in N]: C[number] }> {
  checkName(name);
  checkOptions('select', `select("${name}")`, options);
  checkChoices(name, choices);
  const { method, ...sampling } = options;
  return expr({ kind: 'select', name, choices: [...choices], method, options: sampling });
}

/** An integer of at most 15 digits. */
export function genInt<const N extends string>(name: N, options: SamplingOptions = {}): Expr<{ [K in N]: number }> {
  return gen(name, { ...options, type: 'int' });
}

/** A string in double quotes; the value is what stands between them. */
export function genString<const N extends string>(name: N, options: SamplingOptions = {}): Expr<{ [K in N]: string }> {
  return gen(name, { ...options, type: 'string' });
}

/** A picture: a path, a URL, a data URL, or the bytes of a file. */
export function image(source: ImageInput): Expr<{}> {
  if (typeof source !== 'string' && !(source instanceof URL) && !(source instanceof Uint8Array))
    throw new TypeError(`image: expected a path, a URL, a data URL or bytes, got ${shown(source)}`);
  return expr({ kind: 'image', image: source });
}

type RoleExpression = {
  <P extends readonly Part[]>(strings: TemplateStringsArray, ...parts: P): Expr<VarsOf<P>>;
  <P extends readonly Part[]>(...parts: P): Expr<VarsOf<P>>;
};

function roleExpression(role: BlockRole): RoleExpression {
  return (...args: readonly unknown[]) => expr({ kind: 'role', role, parts: nodesOf(args) });
}

/** A system turn. */
export const system: RoleExpression = roleExpression('system');
/** A user turn. */
export const user: RoleExpression = roleExpression('user');
/** An assistant turn. */
export const assistant: RoleExpression = roleExpression('assistant');

function checkName(name: string): void {
  if (typeof name === 'string' && name !== '') return;
  throw new TypeError(`a variable's name is a string that is not empty, not ${JSON.stringify(name)}`);
}

function checkChoices(name: string, choices: readonly string[]): void {
  if (!Array.isArray(choices)) {
    throw new SglangError('bad_request', `select("${name}"): choices are a list of strings`, 'choices');
  }
  const wrong = choices.findIndex(
    (choice, i) => typeof choice !== 'string' || choice === '' || choices.indexOf(choice) !== i,
  );
  if (choices.length > 0 && wrong < 0) return;
  const what = choices.length === 0 ? 'there are none' : `choice ${wrong + 1} is ${JSON.stringify(choices[wrong])}`;
  throw new SglangError(
    'bad_request',
    `select("${name}"): choices are different strings, none empty; ${what}`,
    'choices',
  );
}
