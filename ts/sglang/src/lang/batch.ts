/** Many runs of one program. Laws: results are in the order of the arguments; at most `concurrency` run at once. */
import type { Backend } from '../backends/backend.ts';
import { anySignal } from './abort.ts';
import { checkOptions } from './options.ts';
import { BatchError, ProgramError, programError } from './program-error.ts';
import { withSharedStart } from './shared-start.ts';
import type { BatchOptions, Result, Run, RunOptions } from './types.ts';

type Vars = Record<string, unknown>;
type Start = (args: object, options: RunOptions) => Run<Vars>;
type Outcome = PromiseSettledResult<Result<Vars>>;

const DEFAULT_CONCURRENCY = 64;

/** Shows how far a batch of `total` runs is; `stop` is called once, whatever happens. */
export type ProgressReporter = (total: number) => { advance(done: number): void; stop(): void };

let showProgress: ProgressReporter = () => ({ advance: () => {}, stop: () => {} });

/** Sets what `progress: true` shows; the language itself knows no terminal. */
export function setProgressReporter(reporter: ProgressReporter): void {
  showProgress = reporter;
}

/** Runs `start` on each of `list`. Without `settled` the first error stops the others and is thrown, as a `BatchError`. */
export async function runAll(
  start: Start,
  list: readonly object[],
  options: BatchOptions & { backend: Backend },
): Promise<Outcome[] | Result<Vars>[]> {
  checkOptions('batch', 'runBatch', options);
  const { concurrency = DEFAULT_CONCURRENCY, onProgress, onSettled, progress, settled, ...rest } = options;
  if (!Array.isArray(list)) throw new TypeError('runBatch takes a list with the arguments of each row');
  if (!Number.isInteger(concurrency) || concurrency < 1) {
    throw new RangeError(`concurrency: expected a positive integer, got ${concurrency}`);
  }
  const bar = progress ? showProgress(list.length) : undefined;
  const report = (done: number, outcome: Outcome, index: number) => {
    bar?.advance(done);
    onSettled?.(outcome, index);
    onProgress?.(done, list.length);
  };
  try {
    const backend = withSharedStart(rest.backend, rest.signal);
    const outcomes = await new Batch(start, list, { ...rest, backend }, !settled, report).run(concurrency);
    return settled ? outcomes : outcomes.map((outcome) => (outcome as PromiseFulfilledResult<Result<Vars>>).value);
  } finally {
    bar?.stop();
  }
}

class Batch {
  readonly #stop = new AbortController();
  readonly #outcomes: Outcome[] = [];
  #next = 0;
  #done = 0;

  constructor(
    readonly start: Start,
    readonly list: readonly object[],
    readonly options: RunOptions,
    readonly stopAtError: boolean,
    readonly report: (done: number, outcome: Outcome, index: number) => void,
  ) {}

  async run(concurrency: number): Promise<Outcome[]> {
    const lanes = Array.from({ length: Math.min(concurrency, this.list.length) }, () => this.#lane());
    try {
      await Promise.all(lanes);
    } catch (error) {
      this.#stop.abort(error);
      const results = Array.from(this.list, (_, i) => {
        const outcome = this.#outcomes[i];
        return outcome?.status === 'fulfilled' ? outcome.value : undefined;
      });
      throw error instanceof ProgramError ? new BatchError(error, results) : error;
    }
    return this.#outcomes;
  }

  async #lane(): Promise<void> {
    while (this.#next < this.list.length) {
      const index = this.#next++;
      const outcome = await this.#item(index);
      this.#outcomes[index] = outcome;
      this.report(++this.#done, outcome, index);
    }
  }

  async #item(index: number): Promise<Outcome> {
    const { signal: outer } = this.options;
    const signal = anySignal(outer, this.#stop.signal);
    try {
      return { status: 'fulfilled', value: await this.start(this.list[index]!, { ...this.options, signal }) };
    } catch (cause) {
      const { vars, cause: root } = cause instanceof ProgramError ? cause : { vars: {}, cause };
      const reason = new ProgramError(programError(`item ${index}`, vars, cause).message, vars, root);
      if (this.stopAtError) throw reason;
      return { status: 'rejected', reason };
    }
  }
}
