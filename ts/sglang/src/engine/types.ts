/**
 * The nouns of the engine as TypeScript sees them: what goes into a generation and what comes out.
 * The server translates them to and from the wire; names are those of the native API in camelCase.
 */

/** Sampling parameters of one generation; what is left out has the default named here. */
export interface SamplingParams {
  /** Most tokens to generate; 0 only computes the prompt, Infinity is all the context leaves. Default 128. */
  maxNewTokens?: number;
  /** EOS and stop tokens are not allowed before this many tokens. Default 0. */
  minNewTokens?: number;
  /** Text that ends the generation; it is not part of the result unless `noStopTrim`. */
  stop?: string | readonly string[];
  /** Token ids that end the generation. */
  stopTokenIds?: readonly number[];
  /** 0 is greedy. Default 1. */
  temperature?: number;
  /** Nucleus mass in (0, 1]. Default 1. */
  topP?: number;
  /** Number of most likely tokens kept; -1 keeps all. Default -1. */
  topK?: number;
  /** Tokens below `minP` times the largest probability are dropped. Default 0. */
  minP?: number;
  /** Subtracted once per earlier occurrence in the output; −2 … 2. Default 0. */
  frequencyPenalty?: number;
  /** Subtracted from every token that occurred in the output; −2 … 2. Default 0. */
  presencePenalty?: number;
  /** Divides the logits of tokens seen in prompt or output; (0, 2]. Default 1. */
  repetitionPenalty?: number;
  /** Added to the logits of tokens, by id. */
  logitBias?: Readonly<Record<string, number>>;
  /** Same seed, same text, whatever else is in the batch. Default: drawn at random. */
  seed?: number;
  /** Number of independent samples. Default 1. */
  n?: number;
  /** Do not stop at the model's end-of-text token. */
  ignoreEos?: boolean;
  /** Leave special tokens out of the text. Default true. */
  skipSpecialTokens?: boolean;
  /** Keep the stop string in the text. */
  noStopTrim?: boolean;
  /** At most one of these constrains the output. */
  regex?: string;
  jsonSchema?: string;
  /** Rules `name ::= …` from `root`; a text without `::=` is a grammar in Lark's notation, from `start`. */
  ebnf?: string;
  /** A grammar in Lark's notation, from `start`. */
  lark?: string;
  /**
   * JSON text `{structures: [{begin, schema, end}], triggers}`: free text with JSON between tags. Where a trigger is
   * written, a structure that begins with it follows; each trigger needs one.
   */
  structuralTag?: string;
}

/** How tokens are drawn, under the names that the engine, backends and programs have for it. */
export type Drawing = Pick<
  SamplingParams,
  | ('temperature' | 'topP' | 'topK' | 'minP')
  | ('frequencyPenalty' | 'presencePenalty' | 'repetitionPenalty')
  | ('stopTokenIds' | 'seed' | 'ignoreEos')
>;

/** An image of a prompt: a path, URL or data URL, or the file's bytes. */
export type ImageInput = string | URL | Uint8Array;

/** One message of a conversation, in the OpenAI shape. */
export interface ChatMessage {
  role: string;
  content: string | readonly ({ type: 'text'; text: string } | { type: 'image_url'; image_url: { url: string } })[];
  /** Calls that an assistant's message makes; arguments are JSON text. */
  tool_calls?: readonly { id?: string; type: 'function'; function: { name: string; arguments: string } }[];
  /** Which call a tool's message answers. */
  tool_call_id?: string;
  name?: string;
}

/** Which log-probabilities to return. */
export interface LogprobOptions {
  returnLogprob?: boolean;
  /** First prompt position whose log-probability is wanted; -1 (default) is output only. */
  logprobStartLen?: number;
  /** Number of most likely alternatives per position. */
  topLogprobsNum?: number;
  /** Token ids whose log-probability is wanted at each position. */
  tokenIdsLogprob?: readonly number[];
}

/** How a request stands to others. */
export interface RequestStanding {
  /** Larger is admitted first and retracted last. Default 0. */
  priority?: number;
  /** Requests with different salts share no cache, so that tenants learn nothing of one another from what is fast. */
  cacheSalt?: string;
}

/** Which states after the last norm become a prompt's embedding: that of the last token, or the mean of all. */
export type Pooling = 'last' | 'mean';

/** A text, or token ids taken as they are. */
export type EmbedInput = string | readonly number[];

export interface EmbedOptions extends RequestStanding {
  /** `mean` computes the whole prompt, also where its prefix is cached. Default: the model's, else `last`. */
  pooling?: Pooling;
  /** Scale to length 1. Default: as the model's files say, else true. */
  normalize?: boolean;
  /** Keep only the first values. */
  dimensions?: number;
  signal?: AbortSignal;
}

export interface Embedding {
  vector: Float32Array;
  promptTokens: number;
  cachedTokens: number;
}

/** All texts or all token ids; each item follows the query, or with `itemFirst` comes before it. */
export interface ScoreRequest extends RequestStanding {
  query: string | readonly number[];
  items: readonly (string | readonly number[])[];
  /** The tokens whose probability to come next is the score. */
  labelTokenIds: readonly number[];
  /** Probabilities among the labels alone, which add up to 1. */
  applySoftmax?: boolean;
  itemFirst?: boolean;
  signal?: AbortSignal;
}

export interface Scores {
  /** Per item, one score per label. */
  scores: number[][];
  promptTokens: number;
  cachedTokens: number;
}

/** Exactly one of `prompt`, `messages` and `inputIds`. */
export interface GenerateRequest extends LogprobOptions, RequestStanding {
  prompt?: string;
  messages?: readonly ChatMessage[];
  inputIds?: readonly number[];
  images?: readonly ImageInput[];
  samplingParams?: SamplingParams;
  /** Asks for the prompt's embedding, as it is; with `maxNewTokens: 0` and without log-probabilities. */
  pooling?: Pooling;
  signal?: AbortSignal;
  /** One more name that parts caches, for any other purpose. */
  extraKey?: string;
  /** Variables for the chat template, with `messages`. */
  chatTemplateOptions?: Readonly<Record<string, unknown>>;
  /** With `messages`: continue the last assistant message in place of opening a new one. */
  continueFinalMessage?: boolean;
}

export type FinishReason =
  | { type: 'stop'; matched: string | number | null }
  | { type: 'length'; length: number }
  | { type: 'abort'; message: string };

/** Orders in which waiting requests of the same priority are admitted; under none is one passed over forever. */
export const schedulePolicies = ['lpm', 'fcfs', 'dfs-weight', 'random'] as const;

/** Log-probability of a token; null for the first token of a prompt, which nothing predicts. */
export interface TokenLogprob {
  logprob: number | null;
  tokenId: number;
}

/** What is known about log-probabilities of a run of positions. */
export interface Logprobs {
  tokens: TokenLogprob[];
  /** Per position, the most likely tokens in descending order (empty unless asked for). */
  top: TokenLogprob[][];
  /** Per position, the tokens of `tokenIdsLogprob`. */
  ofTokens: TokenLogprob[][];
}

export interface GenerateMeta {
  id: string;
  finishReason: FinishReason;
  promptTokens: number;
  completionTokens: number;
  /** Prompt tokens whose KV came from the cache. */
  cachedTokens: number;
  /** Tokens generated besides, and taken back since what they said broke the schema; missing where there are none. */
  discardedTokens?: number;
  /** Seconds from submission to the end. */
  e2eLatency: number;
  /** Seconds in the queue; missing where the request never left it. */
  queueTime?: number;
  inputLogprobs?: Logprobs;
  outputLogprobs?: Logprobs;
}

/** One finished sample. */
export interface GenerateResult {
  text: string;
  outputIds: number[];
  meta: GenerateMeta;
  embedding?: Float32Array;
}

/** A piece of one sample while it streams. The last piece of a sample carries `meta`. */
export interface GenerateChunk {
  /** Which of the `n` samples. */
  index: number;
  /** New text; complete characters only, and never a part of a stop string. */
  text: string;
  outputIds: number[];
  /** Of the prompt, with the first piece. */
  inputLogprobs?: Logprobs;
  outputLogprobs?: Logprobs;
  /** What is known since the request left the queue. */
  admitted?: Admission;
  meta?: GenerateMeta;
}

/** The start of a sample's computation. */
export type Admission = Required<Pick<GenerateMeta, 'promptTokens' | 'cachedTokens' | 'queueTime'>>;

/**
 * A running generation: await it for the result (an array of `n` results is `all()`), or iterate over its pieces.
 * Iterating and awaiting may be combined.
 */
export interface Generation extends PromiseLike<GenerateResult>, AsyncIterable<GenerateChunk> {
  readonly id: string;
  all(): Promise<GenerateResult[]>;
  abort(reason?: string): void;
}

/** What is known about the loaded model. */
export interface ModelCard {
  modelPath: string;
  tokenizerPath: string;
  modelType: string;
  architectures: string[];
  /** Longest sequence (prompt and output) in tokens. */
  contextLength: number;
  vocabSize: number;
  /** Pictures may be in prompts. */
  takesImages: boolean;
  /** False for a model without a head, which embeds only. */
  generates: boolean;
  /** How its embeddings were trained, where its files say so. */
  pooling: Pooling | null;
  /** Whether their length is 1, where its files say so. */
  normalize: boolean | null;
  bosToken: string | null;
  eosToken: string | null;
  bosTokenId: number | null;
  eosTokenIds: number[];
  /** Jinja source, where the model ships one. */
  chatTemplate: string | null;
  /** Files of the model, in bytes. */
  weightBytes: number;
  /** E.g. `cpu (avx512vnni, 2 threads)`, or `2 ranks of cpu (avx512vnni, 1 thread)`. */
  device: string;
  /** Ranks that share the model. */
  tp: number;
  dtype: string;
  /** Tokens that fit the KV cache. */
  maxTotalTokens: number;
}

export interface EngineStats {
  running: number;
  waiting: number;
  /** KV cache in tokens. */
  totalTokens: number;
  freeTokens: number;
  /** In the tree of prefixes; of these, `evictableTokens` belong to no running request. */
  cachedTokens: number;
  evictableTokens: number;
  /** Private to running requests. `free + cached + leased = total`. */
  leasedTokens: number;
  /** Since start. */
  promptTokensTotal: number;
  cachedPromptTokensTotal: number;
  generationTokensTotal: number;
  /** Rows computed, those of retracted requests twice. */
  computedTokensTotal: number;
  evictedTokensTotal: number;
  retractedTotal: number;
  abortedTotal: number;
  finishedTotal: number;
  stepsTotal: number;
  /** Seconds since start in each stage of the steps. */
  admitSeconds: number;
  scheduleSeconds: number;
  runSeconds: number;
  commitSeconds: number;
  emitSeconds: number;
  /** Share of prompt tokens found in the cache, since start. */
  cacheHitRate: number;
  /** Prompt and output tokens per second over the last seconds. */
  promptThroughput: number;
  generationThroughput: number;
}

/** A node of the tree of prefixes: a run of tokens that follows its parent's. */
export interface RadixNode {
  /** Place of the parent in the list; null for the root of a namespace, which has no tokens. */
  parent: number | null;
  /** Hash of salt and key in hexadecimal; `0` without. */
  namespace: string;
  tokens: number;
  pages: number;
  /** Requests whose cached prefix ran through this node, since it was made. */
  hits: number;
  /** Running requests that hold it. */
  leases: number;
  text?: string;
}

/** What the server and the language need of an engine; `Engine` is the real one. */
export interface EngineLike {
  readonly model: ModelCard;
  generate(request: GenerateRequest): Generation;
  /** Encodes text; special tokens spelled in it are recognised; BOS is added where the model wants one. */
  tokenize(text: string, options?: { addSpecialTokens?: boolean }): number[];
  detokenize(ids: readonly number[], options?: { skipSpecialTokens?: boolean }): string;
  /** Renders messages with the model's chat template. */
  applyChatTemplate(
    messages: readonly ChatMessage[],
    options?: {
      addGenerationPrompt?: boolean;
      continueFinalMessage?: boolean;
      variables?: Readonly<Record<string, unknown>>;
    },
  ): string;
  /** Throws once the engine was closed or has failed. */
  stats(): EngineStats;
  /** Drops all cached prefixes that no request holds; resolves with the number of tokens freed. */
  flushCache(): Promise<number>;
  /** The tree of cached prefixes, parents before children; with their text only where asked for. */
  radix(options?: { text?: boolean }): Promise<RadixNode[]>;
  close(): Promise<void>;
}
