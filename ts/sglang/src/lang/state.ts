/** The state a program is written on: a scope as one callable object. Law: every call returns the same object. */
import { nodesOf } from './ir.ts';
import { quiet } from './program-error.ts';
import type { Scope } from './interpreter.ts';
import type { BlockRole, Forks, Result, State } from './types.ts';

type AnyState = State<Record<string, unknown>>;
type AnyResult = Result<Record<string, unknown>>;

const scopes = new WeakMap<object, Scope>();

/** A state that adds to `scope`. */
export function stateOf(scope: Scope): AnyState {
  const add = (change: () => void) => {
    change();
    return state;
  };
  const append = (...args: unknown[]) => add(() => scope.add(nodesOf(args)));
  const turn =
    (role: BlockRole) =>
    (...args: unknown[]) =>
      add(() => addTurn(scope, role, args));
  const roles = { system: turn('system'), user: turn('user'), assistant: turn('assistant') };
  const callable = (...args: unknown[]) => append(...args);
  const state = Object.assign(callable, { append }, roles, reads(scope), branching(scope)) as unknown as AnyState;
  scopes.set(state, scope);
  return state;
}

export function isState(value: unknown): boolean {
  return scopes.has(value as object);
}

/** The scope of a state; a TypeError for anything else. */
export function scopeOf(state: unknown): Scope {
  const scope = scopes.get(state as object);
  if (!scope)
    throw new TypeError('a program is called on a state: program(s, args); use program.run(args) to start it');
  return scope;
}

function addTurn(scope: Scope, role: BlockRole, args: readonly unknown[]): void {
  const [body] = args;
  if (typeof body === 'function' && !isState(body)) scope.block(role, (inner) => body(stateOf(inner)));
  else scope.add([{ kind: 'role', role, parts: nodesOf(args) }]);
}

function reads(scope: Scope) {
  return {
    get: (name: string) => scope.get(name),
    text: () => quiet(scope.settle().then((result) => result.text())),
    messages: () => quiet(scope.settle().then((result) => result.messages())),
    meta: (name: string) => quiet(scope.settle().then((result) => result.meta(name))),
    stream: () => scope.log.read(scope.drained()),
    // oxlint-disable-next-line unicorn/no-thenable -- awaiting a state settles it
    then: <A, B>(onResult?: (result: AnyResult) => A, onError?: (error: unknown) => B) =>
      scope.settle().then(onResult, onError),
  };
}

function branching(scope: Scope) {
  const fork = (n: number) => {
    if (!Number.isInteger(n) || n < 1) throw new RangeError(`fork(n): n is a positive integer, not ${n}`);
    const states = scope.branches(n).map(stateOf);
    return Object.assign(states, { join: () => quiet(Promise.all(states)) }) as unknown as Forks<number, {}>;
  };
  return {
    fork,
    forkMap: <T>(items: readonly T[], body: (s: AnyState, item: T, index: number) => PromiseLike<AnyResult>) => {
      const states = scope.branches(items.length).map(stateOf);
      return quiet(Promise.all(states.map(async (state, i) => body(state, items[i]!, i))));
    },
    copy: <R>(body: (s: AnyState) => R) => {
      const [inner] = scope.branches(1);
      return quiet(run(inner!, body));
    },
  };
}

async function run<R>(scope: Scope, body: (s: AnyState) => R): Promise<Awaited<R>> {
  const out = await body(stateOf(scope));
  await scope.drained();
  return out;
}
