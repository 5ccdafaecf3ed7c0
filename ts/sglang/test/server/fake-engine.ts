/**
 * An engine without a model. A token is a byte; the continuation of a prompt counts through the alphabet from a letter
 * that prompt and sample decide, and ends after 40 letters. So every answer is known, and words in the prompt ask for
 * trouble: see `troubles`.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { SglangError } from '../../src/engine/errors.ts';
import { RunningGeneration } from '../../src/engine/generation.ts';
import type {
  EngineLike,
  EngineStats,
  GenerateRequest,
  Generation,
  ModelCard,
  RadixNode,
} from '../../src/engine/types.ts';

export const eosId = 256;
const vocabSize = 257;
const answerLetters = 40;

const card: ModelCard = {
  modelPath: 'fake/model',
  tokenizerPath: 'fake/model',
  modelType: 'fake',
  architectures: ['FakeForCausalLM'],
  contextLength: 200,
  vocabSize,
  takesImages: false,
  generates: true,
  pooling: null,
  normalize: null,
  bosToken: null,
  eosToken: '<eos>',
  bosTokenId: null,
  eosTokenIds: [eosId],
  chatTemplate: '{{ messages }}',
  weightBytes: 0,
  device: 'fake (1 thread)',
  tp: 1,
  dtype: 'float32',
  maxTotalTokens: 4096,
};

const zero: EngineStats = {
  running: 0,
  waiting: 0,
  totalTokens: 4096,
  freeTokens: 4096,
  cachedTokens: 0,
  evictableTokens: 0,
  leasedTokens: 0,
  promptTokensTotal: 0,
  cachedPromptTokensTotal: 0,
  generationTokensTotal: 0,
  computedTokensTotal: 0,
  evictedTokensTotal: 0,
  retractedTotal: 0,
  abortedTotal: 0,
  finishedTotal: 0,
  stepsTotal: 0,
  admitSeconds: 0,
  scheduleSeconds: 0,
  runSeconds: 0,
  commitSeconds: 0,
  emitSeconds: 0,
  cacheHitRate: 0,
  promptThroughput: 0,
  generationThroughput: 0,
};

/** Logarithm of the probability of token `id` at `position`: negative, different everywhere, the same in every run. */
export const logprobAt = (position: number, id: number) => -(position + 1) / 8 - id / 1024;

/** The state of a prompt: its first and its last token or, as mean, its number of tokens, and 12. */
export const stateOf = (prompt: number[], pooling: string) =>
  Float32Array.of(prompt[0]!, pooling === 'last' ? prompt.at(-1)! : prompt.length, 12);

export class FakeEngine implements EngineLike {
  readonly model = card;
  readonly requests: GenerateRequest[] = [];
  readonly counts: EngineStats = { ...zero };
  closed = false;

  /** `tokenMs` is the time a token takes. */
  constructor(private readonly tokenMs = 0) {}

  generate(request: GenerateRequest): Generation {
    this.requests.push(request);
    const control = new AbortController();
    const { n = 1 } = request.samplingParams ?? {};
    const generation = new RunningGeneration(`fake-${this.requests.length}`, n, () => control.abort());
    const prompt = this.promptOf(request);
    request.signal?.addEventListener('abort', () => control.abort(), { once: true });
    for (let index = 0; index < n; index++) {
      this.run(generation, index, prompt, request, control.signal).catch((error: unknown) => generation.fail(error));
    }
    return generation;
  }

  tokenize(text: string): number[] {
    return [...Buffer.from(text)];
  }

  detokenize(ids: readonly number[]): string {
    return ids.map((id) => (id === eosId ? '<eos>' : String.fromCharCode(id))).join('');
  }

  applyChatTemplate(messages: Parameters<EngineLike['applyChatTemplate']>[0]): string {
    return messages.map(({ role, content }) => `<${role}>${content as string}`).join('') + '<assistant>';
  }

  stats(): EngineStats {
    if (this.closed) throw new SglangError('engine_closed', 'the engine was closed');
    return { ...this.counts };
  }

  flushCache(): Promise<number> {
    return Promise.resolve(16);
  }

  radix({ text = false } = {}): Promise<RadixNode[]> {
    const root = { parent: null, namespace: '0', tokens: 0, pages: 0, hits: 2, leases: 0 };
    const child = { ...root, parent: 0, tokens: 20, pages: 2, hits: 1 };
    return Promise.resolve(
      text
        ? [
            { ...root, text: '' },
            { ...child, text: 'a secret' },
          ]
        : [root, child],
    );
  }

  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }

  private promptOf({ prompt, messages, inputIds }: GenerateRequest): number[] {
    const ids = inputIds ? [...inputIds] : this.tokenize(prompt ?? this.applyChatTemplate(messages!));
    const text = this.detokenize(ids);
    if (ids.length === 0) throw new SglangError('bad_request', 'the prompt is empty', 'text');
    for (const [word, trouble] of Object.entries(troubles)) if (text.includes(word)) throw trouble();
    if (ids.length >= card.contextLength) {
      throw new SglangError('context_length_exceeded', `${ids.length} tokens; the context holds ${card.contextLength}`);
    }
    return ids;
  }

  private async run(
    generation: RunningGeneration,
    index: number,
    prompt: number[],
    request: GenerateRequest,
    signal: AbortSignal,
  ): Promise<void> {
    const { maxNewTokens = 128, stop = [], ignoreEos = false } = request.samplingParams ?? {};
    this.counts.running++;
    const queueSeconds = 0.25;
    const admitted = { promptTokens: prompt.length, cachedTokens: Math.min(4, prompt.length), queueSeconds };
    generation.take(index, { id: 0, text: '', tokens: [], logprobs: [], promptLogprobs: [], admitted });
    this.counts.promptTokensTotal += prompt.length;
    const stops = typeof stop === 'string' ? [stop] : stop;
    const first = prompt.reduce((sum, id) => sum + id, index);
    const letter = (position: number) => 97 + ((first + position) % 26);
    const base = {
      id: 0,
      text: '',
      tokens: [] as number[],
      logprobs: [],
      promptLogprobs: this.promptLogprobs(prompt, request),
    };
    const finish = (reason: string, completionTokens: number, ends = {}) => {
      this.counts.running--;
      this.counts[reason === 'abort' ? 'abortedTotal' : 'finishedTotal']++;
      const counts = {
        ...{ promptTokens: prompt.length, completionTokens, cachedTokens: Math.min(4, prompt.length) },
        discardedTokens: 0,
      };
      const embedding = request.pooling && stateOf(prompt, request.pooling);
      generation.take(index, { ...base, embedding, finish: { reason, ...counts, ...ends } });
    };
    const text = this.detokenize(prompt);
    if (text.includes('SLOW')) await sleep(60_000, undefined, { signal }).catch(() => {});
    let told = '';
    for (let i = 0; ; i++) {
      await sleep(this.tokenMs);
      if (signal.aborted) return finish('abort', i);
      if (i === 3 && text.includes('BREAKS_LATE')) throw new SglangError('device_error', 'the device is gone');
      if (i === 3 && text.includes('CRASHES_LATE')) throw new TypeError('undefined is not a secret');
      if (i >= maxNewTokens) return finish('length', i);
      if (i >= answerLetters && !ignoreEos) return finish('stop', i, { stopToken: eosId });
      const id = letter(i);
      const found = stops.find((one) => (told + String.fromCharCode(id)).endsWith(one));
      if (found !== undefined) return finish('stop', i + 1, { stopText: found });
      told += String.fromCharCode(id);
      this.counts.generationTokensTotal++;
      const logprobs = request.returnLogprob ? [this.position(prompt.length + i, id, request)] : [];
      generation.take(index, { ...base, text: String.fromCharCode(id), tokens: [id], logprobs, finish: undefined });
      base.promptLogprobs = [];
    }
  }

  private promptLogprobs(prompt: number[], request: GenerateRequest) {
    const { returnLogprob, logprobStartLen = -1 } = request;
    if (!returnLogprob || logprobStartLen < 0) return [];
    return prompt.map((id, i) => this.position(i, id, request)).slice(logprobStartLen);
  }

  private position(position: number, id: number, { topLogprobsNum = 0, tokenIdsLogprob = [] }: GenerateRequest) {
    const entry = (token: number) => ({ token, logprob: logprobAt(position, token) });
    if (position === 0) return { token: id, logprob: undefined, top: [], ofTokens: [] };
    const top = Array.from({ length: topLogprobsNum }, (_, i) => entry(65 + i));
    return { ...entry(id), top, ofTokens: tokenIdsLogprob.map(entry) };
  }
}

const troubles: Record<string, () => Error> = {
  OVERLOAD: () => new SglangError('overloaded', 'the queue is full'),
  CRASHES_NOW: () => new TypeError('undefined is not a secret'),
};
