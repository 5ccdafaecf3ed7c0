/**
 * A running generation as JavaScript sees it: pieces to iterate over, results to await. Laws: it settles exactly once;
 * an error that nobody awaits does not crash the process; text pieces joined are the result's text.
 */
import type { NativeEvent, NativePosition } from './native.ts';
import { SglangError, type SglangErrorCode } from './errors.ts';
import type {
  Admission,
  FinishReason,
  GenerateChunk,
  GenerateResult,
  Generation,
  Logprobs,
  TokenLogprob,
} from './types.ts';

/** One of the `n` samples of a generation while it runs. */
class Sample {
  readonly result: GenerateResult;
  #admitted: Admission | undefined;
  #isTold = false;

  constructor(
    readonly index: number,
    id: string,
  ) {
    const meta = {
      id,
      finishReason: abortReason('not started'),
      promptTokens: 0,
      completionTokens: 0,
      cachedTokens: 0,
    };
    this.result = { text: '', outputIds: [], meta: { ...meta, e2eLatency: 0 } };
  }

  /** Takes the news of one step and returns them as a piece, if there is something to tell. */
  take(event: NativeEvent, startedAt: number): GenerateChunk | undefined {
    const { result } = this;
    result.text += event.text;
    for (const token of event.tokens) result.outputIds.push(token);
    if (event.admitted) {
      const { promptTokens, cachedTokens, queueSeconds: queueTime } = event.admitted;
      this.#admitted = { promptTokens, cachedTokens, queueTime };
      Object.assign(result.meta, this.#admitted);
    }
    const { index } = this;
    const chunk: GenerateChunk = { index, text: event.text, outputIds: event.tokens, admitted: this.#admitted };
    if (event.logprobs.length > 0) {
      chunk.outputLogprobs = toLogprobs(event.logprobs);
      result.meta.outputLogprobs = joined(result.meta.outputLogprobs, chunk.outputLogprobs);
    }
    if (event.promptLogprobs.length > 0) {
      result.meta.inputLogprobs = joined(result.meta.inputLogprobs, toLogprobs(event.promptLogprobs));
    }
    if (event.embedding) result.embedding = event.embedding;
    if (event.finish) {
      const { promptTokens, completionTokens, cachedTokens } = event.finish;
      const e2eLatency = (performance.now() - startedAt) / 1000;
      Object.assign(result.meta, { promptTokens, completionTokens, cachedTokens, e2eLatency });
      if (event.finish.discardedTokens > 0) result.meta.discardedTokens = event.finish.discardedTokens;
      result.meta.finishReason = toFinishReason(event);
      chunk.meta = result.meta;
    }
    if (chunk.text === '' && chunk.outputIds.length === 0 && !chunk.meta) return undefined;
    if (!this.#isTold && result.meta.inputLogprobs) chunk.inputLogprobs = result.meta.inputLogprobs;
    this.#isTold = true;
    return chunk;
  }
}

function toLogprobs(positions: readonly NativePosition[]): Logprobs {
  const pairs = (list: readonly { token: number; logprob: number }[]): TokenLogprob[] =>
    list.map(({ token, logprob }) => ({ tokenId: token, logprob }));
  return {
    tokens: positions.map(({ token, logprob }) => ({ tokenId: token, logprob: logprob ?? null })),
    top: positions.map(({ top }) => pairs(top)),
    ofTokens: positions.map(({ ofTokens }) => pairs(ofTokens)),
  };
}

/** Adds to `before`, which no piece shares: one may be read when more has come. */
function joined(before: Logprobs = { tokens: [], top: [], ofTokens: [] }, more: Logprobs): Logprobs {
  before.tokens.push(...more.tokens);
  before.top.push(...more.top);
  before.ofTokens.push(...more.ofTokens);
  return before;
}

function abortReason(message: string): FinishReason {
  return { type: 'abort', message };
}

function toFinishReason({ finish, tokens }: NativeEvent): FinishReason {
  if (finish?.reason === 'stop') return { type: 'stop', matched: finish.stopText ?? finish.stopToken ?? null };
  if (finish?.reason === 'length') return { type: 'length', length: finish.completionTokens || tokens.length };
  return abortReason('aborted by the caller');
}

/** `n` samples of one request; `submit` and `cancel` reach the engine. */
export class RunningGeneration implements Generation {
  readonly #samples: Sample[];
  readonly #startedAt = performance.now();
  readonly #done: Promise<GenerateResult[]>;
  readonly #cancel: () => void;
  #resolve!: (results: GenerateResult[]) => void;
  #reject!: (error: unknown) => void;
  #open: number;
  #failure: unknown;
  #chunks: GenerateChunk[] = [];
  #waiting: (() => void)[] = [];

  constructor(
    readonly id: string,
    n: number,
    cancel: () => void,
  ) {
    this.#samples = Array.from({ length: n }, (_, index) => new Sample(index, n === 1 ? id : `${id}-${index}`));
    this.#open = n;
    this.#cancel = cancel;
    this.#done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#done.catch(() => {});
  }

  /** Takes an event of sample `index`; true once all samples are over. */
  take(index: number, event: NativeEvent): boolean {
    const finish = event.finish;
    if (finish?.errorCode) {
      this.fail(
        new SglangError(finish.errorCode as SglangErrorCode, finish.errorMessage ?? '', finish.errorParam ?? null),
      );
      return true;
    }
    const chunk = this.#samples[index]!.take(event, this.#startedAt);
    if (chunk) this.#chunks.push(chunk);
    if (finish && --this.#open === 0) this.#resolve(this.#samples.map(({ result }) => result));
    this.#wake();
    return this.#open === 0;
  }

  /** Settles with an error. The samples that still run end, as nobody will read them; later events are ignored. */
  fail(error: unknown): void {
    this.#cancel();
    this.#failure ??= error;
    this.#open = 0;
    this.#reject(error);
    this.#wake();
  }

  /** There may be several readers. */
  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  abort(): void {
    this.#cancel();
  }

  all(): Promise<GenerateResult[]> {
    return this.#done;
  }

  then<A = GenerateResult, B = never>(
    onResult?: ((result: GenerateResult) => A | PromiseLike<A>) | null,
    onError?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.#done.then((results) => results[0]!).then(onResult, onError);
  }

  /** Leaving the loop early aborts the generation. */
  async *[Symbol.asyncIterator](): AsyncGenerator<GenerateChunk> {
    let next = 0;
    try {
      while (true) {
        while (next < this.#chunks.length) yield this.#chunks[next++]!;
        if (this.#failure !== undefined) throw this.#failure;
        if (this.#open === 0) return;
        await new Promise<void>((resolve) => this.#waiting.push(resolve));
      }
    } finally {
      if (this.#open > 0) this.#cancel();
    }
  }
}
