/** What a run did, as a tree with times. Law: where nobody asked for a trace, nothing is kept. */
import type { Role } from '../backends/backend.ts';
import type { Meta } from './types.ts';

/**
 * A `run` of a program holds what it did in the order it began: `text` the program added, `gen` and `select`, a `call`
 * of another program, a `branch` of a fork, and `warm`, the computing of what branches share.
 */
export type TraceKind = 'run' | 'call' | 'branch' | 'warm' | 'text' | 'gen' | 'select';

export interface TraceSpan {
  readonly kind: TraceKind;
  /** The variable, the program's function, or the number of the branch. */
  readonly name: string;
  /** The turn it stands in. */
  readonly role: Role | null;
  /** Milliseconds since the epoch, with fractions. */
  readonly startMs: number;
  /** When the first piece of generated text came. */
  firstMs?: number;
  /** Not there while it runs, and for a branch or a text, which end with what they hold. */
  endMs?: number;
  /** What it added to the prompt; of a run, its arguments as JSON. */
  text: string;
  meta?: Meta;
  error?: string;
  readonly children: TraceSpan[];
}

/** Milliseconds since the epoch at which the last of a span was over. */
export function endOf({ startMs, endMs, children }: TraceSpan): number {
  return endMs ?? Math.max(startMs, ...children.map(endOf));
}

export interface TraceTotals {
  /** Of the model, by `gen` and `select`; what was generated ahead needed none. */
  calls: number;
  promptTokens: number;
  cachedTokens: number;
  completionTokens: number;
}

/** Sums over a span and all it holds. */
export function totalsOf({ meta, children }: TraceSpan): TraceTotals {
  const { promptTokens = 0, cachedTokens = 0, completionTokens = 0 } = meta ?? {};
  const own = { calls: meta && !meta.speculated ? 1 : 0, promptTokens, cachedTokens, completionTokens };
  return children.map(totalsOf).reduce(
    (sum, one) => ({
      calls: sum.calls + one.calls,
      promptTokens: sum.promptTokens + one.promptTokens,
      cachedTokens: sum.cachedTokens + one.cachedTokens,
      completionTokens: sum.completionTokens + one.completionTokens,
    }),
    own,
  );
}

/** Collects runs: `program.run(args, { trace })`, and likewise `runBatch`. */
export class Trace {
  readonly runs: TraceSpan[] = [];
}

/** Characters of a run's arguments that a trace keeps. */
const MAX_ARGS = 200;

/** Called when a run starts; what it returns is called when the run is over. */
export type RunObserver = (run: TraceSpan) => (() => void) | undefined;

let observe: RunObserver = () => undefined;

/** Sets who hears of every run. */
export function setRunObserver(observer: RunObserver): void {
  observe = observer;
}

/** The span of a run, and what ends it. */
export function traceRun(
  name: string,
  args: object,
  trace: Trace | undefined,
): { span: Span; end(error?: unknown): void } {
  const record = newSpan('run', name, null);
  const onEnd = observe(record);
  if (!trace && !onEnd) return { span: new Span(), end: () => {} };
  record.text = described(args);
  trace?.runs.push(record);
  const span = new Span(record);
  const end = (error?: unknown) => {
    span.close(error);
    closeRest(record, record.endMs!);
    onEnd?.();
  };
  return { span, end };
}

/** Arguments in short; programs may have any. */
function described(args: object): string {
  try {
    const text = JSON.stringify(args);
    return text === '{}' ? '' : text.slice(0, MAX_ARGS);
  } catch {
    return '';
  }
}

/** What an aborted run left under way ends with it. */
function closeRest({ children }: TraceSpan, endMs: number): void {
  for (const child of children) {
    if (child.kind !== 'branch' && child.kind !== 'text') child.endMs ??= endMs;
    closeRest(child, endMs);
  }
}

/** Writes a `TraceSpan`; without one, nothing. */
export class Span {
  readonly #record: TraceSpan | undefined;

  constructor(record?: TraceSpan) {
    this.#record = record;
  }

  get isRecorded(): boolean {
    return this.#record !== undefined;
  }

  open(kind: TraceKind, name: string, role: Role | null = null): Span {
    if (!this.#record) return this;
    const inner = newSpan(kind, name, role);
    this.#record.children.push(inner);
    return new Span(inner);
  }

  /** Runs `body` in a span of its own. */
  async around<T>(kind: TraceKind, name: string, role: Role | null, body: (span: Span) => Promise<T>): Promise<T> {
    const inner = this.open(kind, name, role);
    try {
      const value = await body(inner);
      inner.close();
      return value;
    } catch (error) {
      inner.close(error);
      throw error;
    }
  }

  /** Text of the program; neighbouring texts of a turn are one span. */
  text(text: string, role: Role | null): void {
    const last = this.#record?.children.at(-1);
    if (last?.kind === 'text' && last.role === role) last.text += text;
    else this.#record?.children.push({ ...newSpan('text', '', role), text });
  }

  /** A piece of the span's own text. */
  generated(piece: string): void {
    if (!this.#record || piece === '') return;
    this.#record.firstMs ??= now();
    this.#record.text += piece;
  }

  measured(meta: Meta): void {
    if (this.#record) this.#record.meta = meta;
  }

  close(error?: unknown): void {
    if (!this.#record) return;
    this.#record.endMs = now();
    if (error !== undefined) this.#record.error = error instanceof Error ? error.message : String(error);
  }
}

function newSpan(kind: TraceKind, name: string, role: Role | null): TraceSpan {
  return { kind, name, role, startMs: now(), text: '', children: [] };
}

function now(): number {
  return performance.timeOrigin + performance.now();
}
