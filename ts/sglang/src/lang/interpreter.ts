/**
 * Runs a prompt's nodes on a backend. Laws: nodes of a scope run in the order they were added, and each starts as soon
 * as the one before is done, whether or not anybody waits; the first failure is the prompt's for good.
 */
import type { Backend, Delta, GenMeta, GenerateOptions, Turn } from '../backends/backend.ts';
import { abortable, abortablePieces, anySignal } from './abort.ts';
import { asyncContext } from './async-context.ts';
import type { Constraint } from './constraint.ts';
import { EventLog } from './events.ts';
import type { Node } from './ir.ts';
import { ProgramError, programError, quiet } from './program-error.ts';
import { IMAGE_MARK, messagesOf, plainText, Prompt } from './prompt.ts';
import type { Span } from './trace.ts';
import type { BlockRole, Message, Meta, Result, SamplingOptions } from './types.ts';

/** What all prompts of a run share. */
export interface Session {
  readonly backend: Backend;
  readonly defaults: SamplingOptions;
  readonly signal: AbortSignal;
  readonly span: Span;
  /** A row of a batch: only a program itself can follow its text. */
  readonly isRow: boolean;
}

/** A prompt at one moment; a branch starts from it. */
interface Snapshot {
  readonly turns: readonly Turn[];
  readonly vars: Readonly<Record<string, unknown>>;
  readonly metas: ReadonlyMap<string, Meta>;
}

type NodeOf<K extends Node['kind']> = Extract<Node, { kind: K }>;

/** One prompt with its variables. */
class Interpreter {
  readonly log = new EventLog();
  prompt = new Prompt();
  vars: Record<string, unknown> = {};
  #metas = new Map<string, Meta>();
  #failure: ProgramError | undefined;

  constructor(
    readonly session: Session,
    /** Records what happens now. */
    public span = session.span,
  ) {}

  restore({ turns, vars, metas }: Snapshot): void {
    this.prompt = new Prompt(turns);
    this.vars = { ...vars };
    this.#metas = new Map(metas);
  }

  snapshot(): Snapshot {
    return { turns: this.prompt.turns(), vars: { ...this.vars }, metas: new Map(this.#metas) };
  }

  /** Throws where the prompt failed or its run was aborted. */
  check(): void {
    if (this.#failure) throw this.#failure;
    this.session.signal.throwIfAborted();
  }

  /** Records the first failure; errors of branches and callees pass as they are. */
  fail(cause: unknown, where = ''): ProgramError {
    this.#failure ??= cause instanceof ProgramError ? cause : programError(where, this.vars, cause);
    return this.#failure;
  }

  /** Runs a node that is not a role; the value of the variable it binds. */
  async run(node: Exclude<Node, { kind: 'role' }>): Promise<unknown> {
    const { role } = this.prompt;
    if (node.kind === 'gen') return this.span.around('gen', node.name, role, (span) => this.#gen(node, span));
    if (node.kind === 'select') return this.span.around('select', node.name, role, (span) => this.#select(node, span));
    this.prompt.append(node.kind === 'text' ? node.text : { image: node.image });
    this.span.text(node.kind === 'text' ? node.text : IMAGE_MARK, role);
    if (node.kind === 'text') this.log.push({ name: null, delta: node.text });
    return undefined;
  }

  /** A variable that is bound; `pending` are names that will be. */
  lookup(name: string, pending: readonly string[]): unknown {
    if (Object.hasOwn(this.vars, name)) return this.vars[name];
    const known = [...new Set([...Object.keys(this.vars), ...pending])].join(', ') || 'none';
    throw programError('', this.vars, new Error(`there is no variable "${name}"; there are: ${known}`));
  }

  async result(): Promise<Result<Record<string, unknown>>> {
    const { turns, vars, metas } = this.snapshot();
    const { backend } = this.session;
    const text = backend.render ? await abortable(backend.render(turns), this.signalOf()) : plainText(turns);
    return new Settled(vars, text, messagesOf(turns), metas);
  }

  async #gen({ name, options, constraint }: NodeOf<'gen'>, span: Span): Promise<unknown> {
    const whole = this.session.isRow && !this.log.isFollowed && !span.isRecorded;
    const wanted = requestOf({ ...this.session.defaults, ...given(options) }, constraint, this.signalOf(options));
    const request = whole ? { ...wanted, whole } : wanted;
    const { text, meta } = await this.#stream(name, request, span);
    span.measured(metaOf(meta));
    this.prompt.append(text);
    this.vars[name] = await constraint.parse(text);
    this.#metas.set(name, metaOf(meta));
    return this.vars[name];
  }

  async #stream(
    name: string,
    request: GenerateOptions & { signal: AbortSignal },
    span: Span,
  ): Promise<Required<Delta>> {
    let text = '';
    let meta: GenMeta | undefined;
    for await (const delta of abortablePieces(
      this.session.backend.stream(this.prompt.openTurns(), request),
      request.signal,
    )) {
      text += delta.text;
      meta = delta.meta ?? meta;
      this.log.push({ name, delta: delta.text });
      span.generated(delta.text);
    }
    if (!meta) throw new Error('the backend ended its stream without a closing piece');
    if (meta.finishReason === 'abort') throw new Error('the backend aborted the generation');
    return { text, meta };
  }

  async #select({ name, choices, method, options }: NodeOf<'select'>, span: Span): Promise<unknown> {
    const signal = this.signalOf(options);
    const temperature = options.temperature ?? this.session.defaults.temperature;
    const asked = this.session.backend.select(this.prompt.openTurns(), choices, { method, temperature, signal });
    const { index, scores, meta } = await abortable(asked, signal);
    const choice = choices[index];
    if (choice === undefined) throw new Error(`the backend chose option ${index} of ${choices.length}`);
    this.prompt.append(choice);
    this.log.push({ name, delta: choice });
    this.vars[name] = choice;
    const known = { ...metaOf(meta), ...(scores && { scores }) };
    this.#metas.set(name, known);
    span.generated(choice);
    span.measured(known);
    return choice;
  }

  /** A signal of its own for each call: one with a listener for every branch looks to Node like a leak. */
  signalOf({ signal }: SamplingOptions = {}): AbortSignal {
    return anySignal(signal, this.session.signal);
  }
}

/** A body that runs, within others. Its step of the outer queue waits for it, so it may not wait for that queue. */
interface Running {
  readonly outer: Scope;
  isOver: boolean;
  readonly within: Running | undefined;
}

const running = asyncContext<Running>();

/** A queue of steps on a prompt. A block's body has its own, which the step of the block waits for. */
export class Scope {
  readonly #on: Interpreter;
  #tail: Promise<unknown>;
  /** When variables bound by no step of this queue are known. */
  #inherited: Promise<unknown>;
  #bound = new Map<string, Promise<unknown>>();

  private constructor(on: Interpreter, start: Promise<unknown>) {
    this.#on = on;
    this.#inherited = this.#tail = start;
  }

  /** A scope on a new, empty prompt. */
  static root(session: Session): Scope {
    return new Scope(new Interpreter(session), Promise.resolve());
  }

  get log(): EventLog {
    return this.#on.log;
  }

  add(nodes: readonly Node[]): void {
    this.#refuseWithin();
    for (const node of nodes) {
      if (node.kind === 'role') this.#addRole(node);
      else if (node.kind === 'gen' || node.kind === 'select') {
        this.#bound.set(
          node.name,
          this.#step(() => this.#on.run(node), `${node.kind}("${node.name}")`),
        );
      } else this.#step(() => this.#on.run(node));
    }
  }

  /** Runs `body` on a scope of its own in this place of the queue, inside a turn of `role`. */
  block(role: BlockRole, body: (inner: Scope) => unknown): void {
    this.#refuseWithin();
    this.#step(() => this.#on.prompt.open(role));
    this.#inherited = this.#step(() => this.#inner(body));
    this.#bound.clear();
    this.#step(() => this.#on.prompt.close());
  }

  /** Runs the body of the program `name` in this place of the queue. */
  call(name: string, body: (inner: Scope) => unknown): void {
    this.#refuseWithin();
    this.#inherited = this.#step(() => {
      const outer = this.#on.span;
      const within = async (span: Span) => {
        this.#on.span = span;
        await this.#inner(body);
      };
      return outer.around('call', name, null, within).finally(() => (this.#on.span = outer));
    });
    this.#bound.clear();
  }

  async #inner(body: (inner: Scope) => unknown): Promise<void> {
    const inner = new Scope(this.#on, Promise.resolve());
    const entry: Running = { outer: this, isOver: false, within: running.getStore() };
    try {
      await running.run(entry, async () => body(inner));
      await inner.drained();
    } finally {
      entry.isOver = true;
    }
  }

  /** Throws where a body that this queue waits for uses it. */
  #refuseWithin(): void {
    for (let entry = running.getStore(); entry; entry = entry.within) {
      if (entry.outer === this && !entry.isOver)
        throw new TypeError('inside the body of a block or a program, use the state that the body is given');
    }
  }

  get(name: string): Promise<unknown> {
    this.#refuseWithin();
    const pending = [...this.#bound.keys()];
    return quiet(this.#bound.get(name) ?? this.#inherited.then(() => this.#on.lookup(name, pending)));
  }

  /** `n` scopes on prompts that start as this one is then. */
  branches(n: number): Scope[] {
    this.#refuseWithin();
    const fork = this.#step(async () => {
      if (n > 1) await this.#warm();
      const spans = Array.from({ length: n }, (_, i) => this.#on.span.open('branch', `${i + 1}`));
      return { snapshot: this.#on.snapshot(), spans };
    });
    return Array.from({ length: n }, (_, i) => {
      const branch = new Interpreter(this.#on.session);
      const scope = new Scope(branch, Promise.resolve());
      scope.#inherited = scope.#step(async () => {
        const { snapshot, spans } = await fork;
        branch.restore(snapshot);
        branch.span = spans[i]!;
      });
      return scope;
    });
  }

  /** Waits for all that was added so far; rejects with the prompt's failure. */
  drained(): Promise<void> {
    this.#refuseWithin();
    return quiet(this.#tail.then(() => this.#on.check()).catch((error) => this.#reject(error)));
  }

  settle(): Promise<Result<Record<string, unknown>>> {
    return quiet(this.drained().then(() => this.#on.result()));
  }

  fail(cause: unknown): ProgramError {
    return this.#on.fail(cause);
  }

  #addRole({ role, parts }: NodeOf<'role'>): void {
    this.#step(() => this.#on.prompt.open(role));
    this.add(parts);
    this.#step(() => this.#on.prompt.close());
  }

  #step<T>(action: () => T | Promise<T>, where?: string): Promise<T> {
    const run = async () => {
      this.#on.check();
      return action();
    };
    const done = this.#tail.then(run).catch((error): never => this.#reject(error, where));
    this.#tail = done.catch(() => {});
    return done;
  }

  #reject(error: unknown, where?: string): never {
    throw this.#on.fail(error, where);
  }

  /** Only a hint: where it fails, the branches will say so. */
  async #warm(): Promise<void> {
    const turns = this.#on.prompt.turns();
    const signal = this.#on.signalOf();
    const { backend } = this.#on.session;
    if (turns.length === 0 || !backend.warm) return;
    await this.#on.span.around('warm', '', null, () => backend.warm!(turns, { signal })).catch(() => {});
  }
}

class Settled implements Result<Record<string, unknown>> {
  readonly #text: string;
  readonly #messages: readonly Message[];
  readonly #metas: ReadonlyMap<string, Meta>;

  constructor(
    readonly vars: Readonly<Record<string, unknown>>,
    text: string,
    messages: readonly Message[],
    metas: ReadonlyMap<string, Meta>,
  ) {
    this.#text = text;
    this.#messages = messages;
    this.#metas = metas;
  }

  get(name: string): unknown {
    return Object.hasOwn(this.vars, name) ? this.vars[name] : undefined;
  }

  text(): string {
    return this.#text;
  }

  messages(): Message[] {
    return this.#messages.map((message) => ({ ...message }));
  }

  meta(name: string): Meta {
    const meta = this.#metas.get(name);
    if (meta) return meta;
    throw new Error(`there is no variable "${name}"; generated: ${[...this.#metas.keys()].join(', ') || 'none'}`);
  }
}

/** An option that is there but undefined is none: the run's default holds. */
function given(options: SamplingOptions): SamplingOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

function requestOf(
  options: SamplingOptions,
  { grammar }: Constraint,
  signal: AbortSignal,
): GenerateOptions & { signal: AbortSignal } {
  const { stop = [], logprobs = false, ...rest } = options;
  const stops = [...(typeof stop === 'string' ? [stop] : stop), ...(grammar.stop ?? [])];
  const wanted =
    logprobs === false ? {} : { returnLogprob: true, topLogprobsNum: Number(logprobs === true ? 0 : logprobs) };
  return { ...rest, ...wanted, ...grammar, stop: stops, signal };
}

function metaOf({ outputLogprobs: logprobs, matched: _matched, ...meta }: GenMeta): Meta {
  return { ...meta, ...(logprobs && { logprobs }) };
}
