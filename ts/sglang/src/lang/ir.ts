/**
 * Expressions: immutable pieces of a prompt. Law: an expression does nothing by itself; only a state that it is added
 * to runs it, so one expression may be used in many prompts.
 */
import type { SelectMethod } from '../backends/backend.ts';
import type { ImageInput } from '../engine/types.ts';
import type { Constraint } from './constraint.ts';
import type { BlockRole, Expr, SamplingOptions } from './types.ts';

/** What an expression is made of. `gen` and `select` bind the variable `name`. */
export type Node =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'image'; readonly image: ImageInput }
  | { readonly kind: 'gen'; readonly name: string; readonly options: SamplingOptions; readonly constraint: Constraint }
  | {
      readonly kind: 'select';
      readonly name: string;
      readonly choices: readonly string[];
      readonly method: SelectMethod | undefined;
      readonly options: SamplingOptions;
    }
  | { readonly kind: 'role'; readonly role: BlockRole; readonly parts: readonly Node[] };

class Expression {
  constructor(readonly node: Node) {
    Object.freeze(this);
  }

  /** Called where somebody forgot the tag before a template. */
  toString(): never {
    throw new TypeError(
      'an expression is no text: write s.user`…${gen("x")}`, without parentheses, or s.user("…", gen("x"))',
    );
  }
}

/** Wraps a node as an expression that binds `Vars`. */
export function expr<Vars extends object>(node: Node): Expr<Vars> {
  return new Expression(node) as unknown as Expr<Vars>;
}

/** The nodes of a template tag's or a call's arguments, in order. Throws a TypeError that names a part of a wrong type. */
export function nodesOf(args: readonly unknown[]): Node[] {
  return (isTag(args) ? interleaved(args[0].raw.length, args) : args).map(toNode).filter((node) => !isEmpty(node));
}

function isTag(args: readonly unknown[]): args is readonly [TemplateStringsArray, ...unknown[]] {
  return Array.isArray(args[0]) && 'raw' in args[0];
}

function interleaved(count: number, [strings, ...values]: readonly [TemplateStringsArray, ...unknown[]]): unknown[] {
  return Array.from({ length: count }, (_, i) => (i < values.length ? [strings[i], values[i]] : [strings[i]])).flat();
}

function isEmpty(node: Node): boolean {
  return node.kind === 'text' && node.text === '';
}

function toNode(part: unknown, index: number): Node {
  if (typeof part === 'string') return { kind: 'text', text: part };
  if (typeof part === 'number') return { kind: 'text', text: String(part) };
  if (part instanceof Expression) return part.node;
  throw new TypeError(
    `part ${index + 1} of a prompt is ${describe(part)}; expected a string, a number or an expression`,
  );
}

function describe(part: unknown): string {
  if (part === null || part === undefined) return `${part} (an argument that is missing or misspelt?)`;
  if (Array.isArray(part)) return 'an array';
  if (typeof (part as { then?: unknown }).then !== 'function') return `of type ${typeof part}`;
  return typeof part === 'function' ? 'a state (await it, then use its variables)' : 'a promise (await it first)';
}
