/**
 * The engine in process: a model loaded by the addon, many generations at once. An `Engine` is also a backend of the
 * language. Law: while a generation is open the process stays alive; otherwise an engine never keeps it from exiting.
 */
import { createHash, randomBytes } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import type { Backend, Delta, GenerateOptions, SelectOptions, Selection, Turn } from '../backends/backend.ts';
import { engineBackend } from '../backends/engine.ts';
import { resolveModel, type PullProgress } from '../models/resolve.ts';
import { renderChat } from '../templates/chat-template.ts';
import { embeddingOf, embeddingRequest, withDefaults } from './embedding.ts';
import { SglangError } from './errors.ts';
import { RunningGeneration } from './generation.ts';
import { imageFiles } from './image-file.ts';
import { checkNames } from './option-names.ts';
import { scoresOf, scoringRequests } from './scoring.ts';
import {
  load,
  inWords,
  type NativeEngine,
  type NativeEvent,
  type NativeLoadOptions,
  type NativeRequest,
} from './native.ts';
import type {
  ChatMessage,
  EmbedInput,
  Embedding,
  EmbedOptions,
  EngineLike,
  EngineStats,
  GenerateMeta,
  GenerateRequest,
  GenerateResult,
  Generation,
  ImageInput,
  ModelCard,
  RadixNode,
  RequestStanding,
  SamplingParams,
  schedulePolicies,
  ScoreRequest,
  Scores,
} from './types.ts';

/** What is going on while an engine is created. */
export type LoadProgress = PullProgress | { phase: 'load'; doneBytes: number; totalBytes: number };

/** Options of {@link Engine.create}; each is also a flag of `sglang serve`. */
export interface EngineOptions {
  /** A GGUF file, a folder in the Hugging Face layout, a named model, or a hub id. */
  modelPath: string;
  /** Branch, tag or commit of a hub id. */
  revision?: string;
  /**
   * The GGUF file of the vision tower that belongs to the one of the language model (llama.cpp's `mmproj`), or a hub id with
   * a file, or `none`. Default: the only `mmproj*.gguf` beside the model in its folder or repository.
   */
  mmproj?: string;
  /** A folder, a file, or a hub id, of which only the tokenizer is fetched. */
  tokenizerPath?: string;
  device?: 'auto' | 'cpu';
  /**
   * `float32` dequantizes the weights and computes in float32. Default `auto`: quantized formats as stored, F16 and BF16 as
   * integers of 14 bits, but for BF16 on processors with AMX.
   */
  dtype?: 'auto' | 'float32';
  /** Quantizes weights that are stored as floats while loading; embedding and head to `q8_0` at least. */
  quantization?: 'q8_0' | 'q4_0' | 'q4_1' | 'q4_k';
  kvCacheDtype?: 'auto' | 'float32' | 'float16' | 'bfloat16' | 'int16' | 'q8_0';
  /** Longest sequence in tokens. Default: the model's, as far as memory reaches. */
  contextLength?: number;
  /** Size of the KV cache in tokens. */
  maxTotalTokens?: number;
  maxRunningRequests?: number;
  maxQueuedRequests?: number;
  /** Most prompt tokens computed in one step; half of them beside requests that generate. Default: 256. */
  chunkedPrefillSize?: number;
  schedulePolicy?: (typeof schedulePolicies)[number];
  disableRadixCache?: boolean;
  /** Ranks that share the model, each with its part of every layer. Default: 1. */
  tp?: number;
  /** Compute threads, of all ranks together. Default: physical cores. */
  threads?: number;
  /** Jinja source, or the name of a built-in template. */
  chatTemplate?: string;
  /** Makes generations without a seed of their own reproducible. */
  randomSeed?: number;
  onProgress?: (progress: LoadProgress) => void;
  signal?: AbortSignal;
}

/** Seconds over which throughput is averaged. */
const THROUGHPUT_WINDOW = 5;
const MAX_SAMPLES = 128;
/** How the addon is told that only the context limits the output. */
const UNLIMITED = 0xffff_ffff;

/** A generation's samples by native id. */
interface OpenSample {
  generation: RunningGeneration;
  index: number;
}

export class Engine implements EngineLike, Backend {
  readonly kind = 'engine';
  readonly model: ModelCard;
  readonly #native: NativeEngine;
  readonly #backend: Backend;
  readonly #open = new Map<number, OpenSample>();
  readonly #chatTemplate: string | null;
  readonly #recent: { at: number; prompt: number; output: number }[] = [];
  #nextId = 1;
  #nextSeed: () => [number, number];
  #keepAlive: NodeJS.Timeout | undefined;
  #closed = false;

  private constructor(native: NativeEngine, options: EngineOptions) {
    this.#native = native;
    const card = JSON.parse(native.model) as ModelCard;
    this.#chatTemplate = options.chatTemplate ?? card.chatTemplate;
    this.model = { ...card, modelPath: options.modelPath, chatTemplate: this.#chatTemplate };
    this.#nextSeed = seeds(options.randomSeed);
    this.#backend = engineBackend(this);
  }

  /** Finds the model (downloading a named one if need be), loads it and starts the engine. */
  static async create(options: EngineOptions): Promise<Engine> {
    if (typeof options?.modelPath !== 'string')
      throw new TypeError("Engine.create takes an object, such as { modelPath: 'smollm2-135m-instruct' }");
    checkNames('Engine.create', options);
    const { onProgress = () => {}, signal, chatTemplate, randomSeed, quantization, dtype, ...rest } = options;
    const paths = await pathsOf(options);
    signal?.throwIfAborted();
    // Events come only after a generation was submitted, when the engine exists.
    let dispatch: (events: readonly NativeEvent[]) => void = () => {};
    const native = await load(
      { ...rest, ...paths, dtype: quantization ?? dtype, simd: process.env.SGLANG_SIMD } as NativeLoadOptions,
      (progress) => onProgress({ phase: 'load', ...progress }),
      (events) => dispatch(events),
    );
    const engine = new Engine(native, { ...options, chatTemplate, randomSeed });
    dispatch = (events) => engine.#dispatch(events);
    return engine;
  }

  generate(request: GenerateRequest): Generation {
    const { samplingParams, signal } = request;
    const n = samplingParams?.n ?? 1;
    const ids: number[] = [];
    let cancelled = false;
    const cancel = () => {
      cancelled = true;
      ids.forEach((id) => this.#native.abort(id));
    };
    const generation = new RunningGeneration(`gen-${randomBytes(8).toString('hex')}`, n, cancel);
    try {
      checkNames('generate', request);
      checkNames('samplingParams', samplingParams);
      if (!Number.isInteger(n) || n < 1 || n > MAX_SAMPLES) {
        throw new SglangError('bad_request', `n: expected an integer in [1, ${MAX_SAMPLES}], got ${n}`, 'n');
      }
      signal?.throwIfAborted();
      const native = this.#toNative(request);
      const submitAll = (images?: Buffer[]) => {
        for (let index = 0; index < n; index++) ids.push(this.#submit({ ...native, images }, generation, index));
        if (cancelled) cancel();
      };
      const images = imagesOf(request);
      if (images.length === 0) submitAll();
      else
        this.#filesOf(images, signal)
          .then(submitAll)
          .catch((error) => generation.fail(error));
    } catch (error) {
      generation.fail(inWords(error));
      return generation;
    }
    if (signal) abortWith(signal, generation);
    return generation;
  }

  /** The embedding of each input. Where one fails, the others are aborted. */
  async embed(inputs: readonly EmbedInput[], options: EmbedOptions = {}): Promise<Embedding[]> {
    checkNames('embed', options);
    const chosen = withDefaults(options, this.model);
    const results = await this.#together(inputs.map((input) => embeddingRequest(input, chosen)));
    return results.map((result) => embeddingOf(result, chosen));
  }

  /** How likely each label is to come after query and item, for all items at once. */
  async score(request: ScoreRequest): Promise<Scores> {
    checkNames('score', request);
    const results = await this.#together(scoringRequests(request));
    const sum = (count: (meta: GenerateMeta) => number) => results.reduce((n, { meta }) => n + count(meta), 0);
    return {
      scores: results.map((result) => scoresOf(result, request)),
      promptTokens: sum((meta) => meta.promptTokens),
      cachedTokens: sum((meta) => meta.cachedTokens),
    };
  }

  /** All results; where one fails, nothing of the others is under way any more. */
  async #together(requests: readonly GenerateRequest[]): Promise<GenerateResult[]> {
    const generations = requests.map((request) => this.generate(request));
    try {
      return await Promise.all(generations);
    } catch (error) {
      generations.forEach((generation) => generation.abort());
      await Promise.allSettled(generations);
      throw error;
    }
  }

  tokenize(text: string, { addSpecialTokens = true } = {}): number[] {
    return this.#native.tokenize(text, addSpecialTokens);
  }

  detokenize(ids: readonly number[], { skipSpecialTokens = true } = {}): string {
    try {
      return this.#native.detokenize([...ids], skipSpecialTokens);
    } catch (error) {
      throw new SglangError('bad_request', (error as Error).message, 'tokens');
    }
  }

  applyChatTemplate(
    messages: readonly ChatMessage[],
    options: {
      addGenerationPrompt?: boolean;
      continueFinalMessage?: boolean;
      variables?: Readonly<Record<string, unknown>>;
    } = {},
  ): string {
    return renderChat(this.model, messages, options);
  }

  stats(): EngineStats {
    const stats = this.#native.stats();
    if (!stats) throw new SglangError('engine_closed', 'the engine was closed or has failed');
    const counted = stats as unknown as Omit<EngineStats, 'cacheHitRate' | 'promptThroughput' | 'generationThroughput'>;
    const cacheHitRate = counted.cachedPromptTokensTotal / Math.max(counted.promptTokensTotal, 1);
    return { ...counted, cacheHitRate, ...this.#throughput() };
  }

  async radix({ text = false }: { text?: boolean } = {}): Promise<RadixNode[]> {
    const nodes = await this.#native.tree(text);
    return nodes.map(({ parent, ...node }) => ({ parent: parent ?? null, ...node }));
  }

  async flushCache(): Promise<number> {
    return this.#native.flushCache();
  }

  /** Ends open generations with an error, then frees the model. Closing twice is fine. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#native.close();
    const gone = new SglangError('engine_closed', 'the engine was closed');
    for (const { generation } of this.#open.values()) generation.fail(gone);
    this.#open.clear();
    this.#rest();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** This engine as a backend for programs of one tenant or of one importance. */
  backend(standing: RequestStanding): Backend {
    return engineBackend(this, standing);
  }

  stream(prompt: readonly Turn[], options: GenerateOptions): AsyncIterable<Delta> {
    return this.#backend.stream(prompt, options);
  }

  select(prompt: readonly Turn[], choices: readonly string[], options: SelectOptions): Promise<Selection> {
    return this.#backend.select(prompt, choices, options);
  }

  async render(prompt: readonly Turn[]): Promise<string> {
    return (await this.#backend.render?.(prompt)) ?? '';
  }

  async warm(prompt: readonly Turn[], options: { signal?: AbortSignal }): Promise<void> {
    await this.#backend.warm?.(prompt, options);
  }

  #submit(
    native: Omit<NativeRequest, 'id' | 'seed'> & { seed?: number[] },
    generation: RunningGeneration,
    index: number,
  ): number {
    const id = this.#nextId++;
    const [high, low] = native.seed ?? this.#nextSeed();
    if (!this.#native.submit({ ...native, id, seed: [high!, (low! + index) >>> 0] })) {
      throw new SglangError('engine_closed', 'the engine was closed');
    }
    this.#open.set(id, { generation, index });
    this.#keepAlive ??= setInterval(() => {}, 2 ** 30);
    return id;
  }

  #dispatch(events: readonly NativeEvent[]): void {
    let [prompt, output] = [0, 0];
    for (const event of events) {
      prompt += event.admitted?.promptTokens ?? 0;
      output += event.tokens.length;
      const sample = this.#open.get(event.id);
      if (!sample) continue;
      sample.generation.take(sample.index, event);
      if (event.finish) this.#open.delete(event.id);
    }
    if (prompt + output > 0) this.#recent.push({ at: performance.now(), prompt, output });
    this.#forgetOld();
    if (this.#open.size === 0) this.#rest();
  }

  #rest(): void {
    clearInterval(this.#keepAlive);
    this.#keepAlive = undefined;
  }

  #forgetOld(): void {
    const since = performance.now() - THROUGHPUT_WINDOW * 1000;
    while (this.#recent.length > 0 && this.#recent[0]!.at < since) this.#recent.shift();
  }

  #throughput() {
    this.#forgetOld();
    const perSecond = (of: 'prompt' | 'output') =>
      this.#recent.reduce((sum, step) => sum + step[of], 0) / THROUGHPUT_WINDOW;
    return { promptThroughput: perSecond('prompt'), generationThroughput: perSecond('output') };
  }

  #toNative(request: GenerateRequest): Omit<NativeRequest, 'id' | 'seed'> & { seed?: number[] } {
    const { stop, stopTokenIds, seed, logitBias, maxNewTokens, ...same } = request.samplingParams ?? {};
    checkCounts({ maxNewTokens: maxNewTokens === Infinity ? 0 : maxNewTokens, minNewTokens: same.minNewTokens });
    return {
      ...same,
      ...this.#promptOf(request),
      ...logprobsOf(request),
      maxNewTokens: maxNewTokens === Infinity ? UNLIMITED : maxNewTokens,
      pooling: request.pooling,
      constraint: constraintOf(same),
      priority: request.priority,
      namespace: namespaceOf(request),
      stop: stop === undefined ? undefined : [stop].flat(),
      stopTokenIds: stopTokenIds && [...stopTokenIds],
      logitBias: biasOf(logitBias),
      seed: seed === undefined ? undefined : halves(seed),
    };
  }

  async #filesOf(images: readonly ImageInput[], signal: AbortSignal | undefined): Promise<Buffer[]> {
    if (!this.model.takesImages) {
      throw new SglangError('unsupported', `the model ${this.model.modelPath} does not take images`, 'image_data');
    }
    const files = await imageFiles(images, { trusted: true, signal });
    signal?.throwIfAborted();
    return files.map((file) => Buffer.from(file.buffer, file.byteOffset, file.byteLength));
  }

  #promptOf(request: GenerateRequest): Pick<NativeRequest, 'text' | 'inputIds'> {
    const { prompt, messages, inputIds } = request;
    if ([prompt, messages, inputIds].filter((given) => given !== undefined).length !== 1) {
      throw new SglangError('bad_request', 'give exactly one of prompt, messages and inputIds', 'prompt');
    }
    if (inputIds) return { inputIds: [...inputIds] };
    if (prompt !== undefined) return { text: prompt };
    const { continueFinalMessage, chatTemplateOptions: variables } = request;
    return { text: this.applyChatTemplate(messages!, { continueFinalMessage, variables }) };
  }
}

/** Where the files of model, vision tower and tokenizer lie, fetched if need be. */
async function pathsOf({ modelPath, revision, mmproj, tokenizerPath, onProgress, signal }: EngineOptions) {
  const part = mmproj === undefined ? 'model' : 'language';
  const model = await resolveModel(modelPath, { revision, onProgress, signal, part });
  const own = mmproj === undefined || mmproj === 'none';
  const tower = own ? model.mmprojPath : (await resolveModel(mmproj, { onProgress, signal, part })).path;
  const tokenizer = tokenizerPath && (await resolveModel(tokenizerPath, { part: 'tokenizer', signal })).path;
  return { modelPath: model.path, mmproj: tower, tokenizerPath: tokenizer ?? model.tokenizerPath };
}

/** Pictures in the order of their marks: those given beside the prompt, else those within messages. */
function imagesOf({ images, messages = [] }: GenerateRequest): readonly ImageInput[] {
  if (images) return images;
  const parts = messages.flatMap(({ content }) => (Array.isArray(content) ? content : []));
  return parts.flatMap((part) => (part.type === 'image_url' ? [part.image_url.url] : []));
}

/** Many generations may heed one signal, which Node would take for a leak; each lets go of it at its end. */
function abortWith(signal: AbortSignal, generation: RunningGeneration): void {
  setMaxListeners(0, signal);
  const onAbort = () => generation.fail(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  const forget = () => signal.removeEventListener('abort', onAbort);
  generation.all().then(forget, forget);
}

function logprobsOf(request: GenerateRequest) {
  const { returnLogprob, logprobStartLen = -1, topLogprobsNum, tokenIdsLogprob } = request;
  return {
    returnLogprob,
    promptLogprobStart: returnLogprob && logprobStartLen >= 0 ? logprobStartLen : undefined,
    topLogprobs: topLogprobsNum,
    tokenIdsLogprob: tokenIdsLogprob ? [...tokenIdsLogprob] : undefined,
  };
}

/** Kind and text of the constraint. */
function constraintOf({ regex, jsonSchema, ebnf, lark, structuralTag }: SamplingParams): string[] | undefined {
  const kinds = { regex, json_schema: jsonSchema, ebnf, lark, structural_tag: structuralTag };
  return Object.entries(kinds).find((entry): entry is [string, string] => entry[1] !== undefined);
}

/** The addon would take other numbers for some whole ones. */
function checkCounts(counts: Record<string, number | undefined>): void {
  for (const [name, count = 0] of Object.entries(counts)) {
    if (typeof count !== 'number' || (Number.isInteger(count) && count >= 0 && count < UNLIMITED)) continue;
    throw new SglangError('bad_request', `${name}: expected a whole number, 0 or more, got ${count}`, name);
  }
}

function biasOf(logitBias: SamplingParams['logitBias']) {
  if (!logitBias) return undefined;
  return Object.entries(logitBias).map(([token, logprob]) => {
    if (!/^\d+$/.test(token))
      throw new SglangError('bad_request', `logit_bias: "${token}" is not a token id`, 'logit_bias');
    return { token: Number(token), logprob };
  });
}

/** The halves of a safe integer, as the addon takes 64-bit numbers. */
function halves(value: number): [number, number] {
  if (!Number.isSafeInteger(value))
    throw new SglangError('bad_request', `seed: expected an integer, got ${value}`, 'seed');
  const bits = BigInt.asUintN(64, BigInt(value));
  return [Number(bits >> 32n), Number(bits & 0xffff_ffffn)];
}

/** Halves of a hash of what parts the caches; nothing where nothing does. */
function namespaceOf({ cacheSalt, extraKey }: GenerateRequest): number[] | undefined {
  if (cacheSalt === undefined && extraKey === undefined) return undefined;
  const text = JSON.stringify([cacheSalt ?? null, extraKey ?? null]);
  const digest = createHash('sha256').update(text).digest();
  return [digest.readUInt32BE(0), digest.readUInt32BE(4)];
}

/** Seeds for generations that name none: random, or counted from `start`. */
function seeds(start: number | undefined): () => [number, number] {
  let next = start;
  return () => {
    if (next !== undefined) return halves(next++);
    const bytes = randomBytes(8);
    return [bytes.readUInt32BE(0), bytes.readUInt32BE(4)];
  };
}
