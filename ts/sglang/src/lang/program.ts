/**
 * Programs: functions on a state, run once, over a batch, or inside one another. Law: a run that fails or is aborted
 * leaves nothing running.
 */
import type { Backend } from '../backends/backend.ts';
import { abortable, anySignal } from './abort.ts';
import { runAll } from './batch.ts';
import { Scope, type Session } from './interpreter.ts';
import { checkBackend, checkOptions, shown } from './options.ts';
import { quiet } from './program-error.ts';
import { isState, scopeOf, stateOf } from './state.ts';
import { traceRun } from './trace.ts';
import type {
  BatchOptions,
  Loose,
  NamedArgs,
  Program,
  Result,
  ResultVars,
  Run,
  RunOptions,
  State,
  TextEvent,
} from './types.ts';

type Vars = Record<string, unknown>;
type Body = (s: State<{}>, args: never) => PromiseLike<Result<Vars>>;

/** Makes a program of `body`, which adds to the state and returns it. */
export function fn<Args extends NamedArgs = {}, R extends PromiseLike<Result<any>> = PromiseLike<Result<{}>>>(
  body: (s: State<{}>, args: Args) => R,
): Program<Args, Loose<ResultVars<Awaited<R>>>> {
  if (typeof body !== 'function') throw new TypeError(`fn makes a program of a function (s, args) => …, not ${body}`);
  return programOf(body, {}) as Program<Args, Loose<ResultVars<Awaited<R>>>>;
}

/** `bound` are arguments given by `bind`. */
function programOf(body: Body, bound: object): unknown {
  const withBound = (args: object = {}) => ({ ...bound, ...named(args) }) as never;
  const call = (state: unknown, args?: object) => {
    scopeOf(state).call(nameOf(body), (inner) => body(stateOf(inner), withBound(args)));
    return state;
  };
  const run = (args?: object, options: RunOptions = {}) => new Running(body, withBound(args), options);
  const row = (args: object, options: RunOptions) => new Running(body, withBound(args), options, true);
  return Object.assign(call, {
    run,
    runBatch: (list: readonly object[], options: BatchOptions = {}) =>
      quiet(runAll(row, list, { ...options, backend: options.backend ?? defaultBackend })),
    bind: (args: object) => programOf(body, withBound(args)),
  });
}

/** What the types refuse, for programs in JavaScript: letters of a text would become arguments. */
function named(args: unknown): object {
  if (typeof args === 'object' && args !== null && !Array.isArray(args)) return args;
  const given = Array.isArray(args)
    ? 'a list'
    : isState(args)
      ? 'a state (call program(state, args) to go on with it)'
      : shown(args);
  throw new TypeError(`a program takes its arguments as one object, such as { question: '…' }; got ${given}`);
}

function nameOf(body: Body): string {
  return body.name || 'program';
}

class Running implements Run<Vars> {
  readonly #controller = new AbortController();
  readonly #scope: Scope;
  readonly #outcome: Promise<Result<Vars>>;

  constructor(body: Body, args: never, options: RunOptions, isRow = false) {
    checkOptions('run', 'run', options);
    const { backend = defaultBackend, signal, trace, ...defaults } = options;
    const own = this.#controller.signal;
    const { span, end } = traceRun(nameOf(body), args, trace);
    const session = { backend, defaults, span, isRow, signal: anySignal(signal, own) };
    this.#scope = Scope.root(session);
    this.#outcome = quiet(this.#run(body, args, session));
    quiet(this.#outcome.then(() => end(), end));
  }

  // oxlint-disable-next-line unicorn/no-thenable -- awaiting a run gives its result
  then<A = Result<Vars>, B = never>(
    onResult?: ((result: Result<Vars>) => A | PromiseLike<A>) | null,
    onError?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.#outcome.then(onResult, onError);
  }

  catch<B = never>(onError?: ((error: any) => B | PromiseLike<B>) | null): Promise<Result<Vars> | B> {
    return this.#outcome.catch(onError);
  }

  finally(onEnd?: (() => void) | null): Promise<Result<Vars>> {
    return this.#outcome.finally(onEnd);
  }

  /** For programs in JavaScript. */
  get vars(): never {
    throw new TypeError('a run has variables when it is over: (await run).vars');
  }

  async *textStream(name?: string): AsyncGenerator<string, void> {
    for await (const event of this.events()) {
      if (name === undefined || event.name === name) yield event.delta;
    }
  }

  events(): AsyncIterable<TextEvent> {
    return this.#scope.log.read(this.#outcome);
  }

  abort(reason?: unknown): void {
    this.#controller.abort(reason);
  }

  async #run(body: Body, args: never, { signal }: Session): Promise<Result<Vars>> {
    try {
      signal.throwIfAborted();
      return await abortable(this.#settle(body, args), signal);
    } catch (cause) {
      const failure = this.#scope.fail(cause);
      this.#controller.abort(failure);
      throw failure;
    }
  }

  /** A body in JavaScript may return nothing; then the result is the state it was given. */
  async #settle(body: Body, args: never): Promise<Result<Vars>> {
    const returned: Result<Vars> | undefined = await body(stateOf(this.#scope), args);
    await this.#scope.drained();
    return returned ?? this.#scope.settle();
  }
}

const noBackend: Backend = {
  kind: 'none',
  stream: () => {
    throw new Error('no backend: call setDefaultBackend(...) first, or pass { backend } to run');
  },
  select: async () => noBackend.stream([], {}) as never,
};

let defaultBackend = noBackend;

/** The backend of every run that names none. */
export function setDefaultBackend(backend: Backend): void {
  checkBackend('setDefaultBackend', backend);
  defaultBackend = backend;
}

/** Drops cached prefixes of the backend, the default one if none is given; nothing to do where it keeps none. */
export async function flushCache(backend: Backend = defaultBackend): Promise<void> {
  await backend.flushCache?.();
}
