/**
 * The AI SDK, both ways (its language model specification v3): any of its models as a backend, any backend as one of
 * its models. Law: what one side asks for and the other lacks is said, by an error here and by a warning there.
 *
 * @module ai-sdk
 */
import type {
  LanguageModelV3,
  LanguageModelV3CallOptions,
  LanguageModelV3Content,
  LanguageModelV3FilePart,
  LanguageModelV3Message,
  LanguageModelV3StreamPart,
  LanguageModelV3Usage,
  ProviderV3,
  SharedV3Warning,
} from '@ai-sdk/provider';
import { SglangError } from '../engine/errors.ts';
import { contentText } from '../lang/prompt.ts';
import type { UnsupportedOptions } from './api-options.ts';
import type { Backend, Content, Delta, GenerateOptions, GenMeta, Turn } from './backend.ts';
import { imageUrl } from './image-source.ts';
import { wholeOf } from './json-values.ts';
import { SchemaBackend } from './schema-backend.ts';

const SUPPORTED = [
  ...(['temperature', 'topP', 'topK', 'frequencyPenalty', 'presencePenalty', 'stop', 'seed'] as const),
  'jsonSchema' as const,
];

/** A model of the AI SDK as a backend. */
export function aiSdkBackend(model: LanguageModelV3, options: UnsupportedOptions = {}): Backend {
  return new AiSdkBackend(model, options);
}

class AiSdkBackend extends SchemaBackend {
  readonly kind: string;

  constructor(
    readonly model: LanguageModelV3,
    options: UnsupportedOptions,
  ) {
    super(`${model.modelId}: the AI SDK`, SUPPORTED, options);
    this.kind = `ai-sdk ${model.provider}`;
  }

  protected async *complete(
    turns: readonly Turn[],
    options: GenerateOptions,
    schema?: object,
  ): AsyncGenerator<Delta, void> {
    const { maxTokens = 128, temperature, topP, topK = -1, seed, stop = [], signal } = options;
    const { stream } = await this.model.doStream({
      prompt: await Promise.all(turns.filter(({ content }) => content.length > 0).map((turn) => this.#message(turn))),
      maxOutputTokens: maxTokens,
      ...{ temperature, topP, seed, abortSignal: signal },
      ...{ frequencyPenalty: options.frequencyPenalty, presencePenalty: options.presencePenalty },
      ...(topK > 0 && { topK }),
      ...(stop.length > 0 && { stopSequences: [...stop] }),
      ...(schema && { responseFormat: { type: 'json', schema, name: 'output' } }),
    });
    let over = false;
    for await (const part of stream as unknown as AsyncIterable<LanguageModelV3StreamPart>) {
      if (part.type === 'error') throw part.error;
      if (part.type === 'stream-start') this.#heed(part.warnings);
      if (part.type === 'text-delta') yield { text: part.delta };
      if (part.type !== 'finish') continue;
      over = true;
      yield { text: '', meta: this.#metaOf(part) };
    }
    if (!over) throw new SglangError('engine_closed', `${this.model.modelId}: the answer broke off`);
  }

  /** A provider warns of what it leaves out. */
  #heed(warnings: readonly SharedV3Warning[]): void {
    if (this.unsupported.ignoreUnsupported) return;
    for (const warning of warnings) {
      if (warning.type !== 'unsupported') continue;
      const { feature, details = 'create the backend with { ignoreUnsupported: true } to do without' } = warning;
      throw new SglangError('unsupported', `${this.model.modelId} has no ${feature}: ${details}`, feature);
    }
  }

  #metaOf({ usage, finishReason }: Extract<LanguageModelV3StreamPart, { type: 'finish' }>): GenMeta {
    const { unified, raw } = finishReason;
    if (unified === 'error' || unified === 'content-filter')
      throw new SglangError('bad_request', `${this.model.modelId} ended with ${raw ?? unified}`);
    return {
      promptTokens: usage.inputTokens.total ?? 0,
      completionTokens: usage.outputTokens.total ?? 0,
      cachedTokens: usage.inputTokens.cacheRead ?? 0,
      finishReason: unified === 'length' ? 'length' : 'stop',
      matched: null,
    };
  }

  async #message(turn: Turn): Promise<LanguageModelV3Message> {
    const { role, content } = turn;
    if (role === 'system') return { role, content: contentText(turn) };
    const parts = await Promise.all(content.map((piece) => this.#part(piece)));
    return { role: role === 'assistant' ? role : 'user', content: parts };
  }

  /** A URL that the model does not fetch is fetched here, as the AI SDK does before it calls a model. */
  async #part(piece: Content): Promise<{ type: 'text'; text: string } | LanguageModelV3FilePart> {
    if (typeof piece === 'string') return { type: 'text', text: piece };
    const url = await imageUrl(piece.image);
    const data = /^data:([^;,]+);base64,(.*)$/s.exec(url);
    if (data) return { type: 'file', mediaType: data[1]!, data: data[2]! };
    const patterns = Object.entries(await this.model.supportedUrls).filter(([type]) => /^(\*|image)/.test(type));
    const fetches = patterns.some(([, list]) => list.some((pattern) => pattern.test(url.toLowerCase())));
    if (fetches) return { type: 'file', mediaType: 'image/*', data: new URL(url) };
    const response = await fetch(url);
    if (!response.ok) throw new SglangError('bad_request', `image ${url}: ${response.status}`, 'image');
    const mediaType = response.headers.get('content-type') ?? 'image/*';
    return { type: 'file', mediaType, data: new Uint8Array(await response.arrayBuffer()) };
  }
}

export interface SglangProviderOptions {
  /** Most tokens of an answer where the caller says none. Default: as many as fit an Engine, 1,024 elsewhere. */
  maxOutputTokens?: number;
}

/** A provider of the AI SDK: `createSglang(engine)('name')` is a model of it that `backend` answers for. */
export interface SglangProvider extends ProviderV3 {
  (modelId?: string): LanguageModelV3;
}

/** A backend (an Engine is one) as a provider of the AI SDK. Every name is a name of its one model. */
export function createSglang(backend: Backend, options: SglangProviderOptions = {}): SglangProvider {
  const languageModel = (modelId = backend.kind) => new SglangModel(backend, modelId, options);
  const none = (modelId: string): never => {
    throw new SglangError(
      'model_not_found',
      `sglang has language models only, so there is no ${modelId} here`,
      'model',
    );
  };
  const others = { embeddingModel: none, imageModel: none };
  return Object.assign(languageModel, { specificationVersion: 'v3' as const, languageModel, ...others });
}

class SglangModel implements LanguageModelV3 {
  readonly specificationVersion = 'v3';
  readonly provider = 'sglang';
  readonly supportedUrls = { 'image/*': [/^https?:/] };

  constructor(
    readonly backend: Backend,
    readonly modelId: string,
    readonly options: SglangProviderOptions,
  ) {}

  async doGenerate(call: LanguageModelV3CallOptions) {
    const { text, meta } = await wholeOf(this.#run(call));
    const content: LanguageModelV3Content[] = text === '' ? [] : [{ type: 'text', text }];
    return { content, ...endOf(meta), warnings: warningsOf(call) };
  }

  async doStream(call: LanguageModelV3CallOptions) {
    const parts = this.#parts(call);
    const stream = new ReadableStream<LanguageModelV3StreamPart>({
      pull: async (controller) => {
        const { done, value } = await parts.next();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: async () => void (await parts.return()),
    });
    return { stream };
  }

  async *#parts(call: LanguageModelV3CallOptions): AsyncGenerator<LanguageModelV3StreamPart, void> {
    const id = '0';
    yield { type: 'stream-start', warnings: warningsOf(call) };
    yield { type: 'response-metadata', modelId: this.modelId };
    yield { type: 'text-start', id };
    for await (const { text, meta } of this.#run(call)) {
      if (text !== '') yield { type: 'text-delta', id, delta: text };
      if (!meta) continue;
      yield { type: 'text-end', id };
      yield { type: 'finish', ...endOf(meta) };
    }
  }

  #run(call: LanguageModelV3CallOptions): AsyncIterable<Delta> {
    const { temperature, topP, topK, frequencyPenalty, presencePenalty, seed, responseFormat } = call;
    const room = this.options.maxOutputTokens ?? (this.backend.kind === 'engine' ? Infinity : 1024);
    const given = Object.entries({ temperature, topP, topK, frequencyPenalty, presencePenalty, seed });
    return this.backend.stream(turnsOf(call.prompt), {
      ...Object.fromEntries(given.filter(([, value]) => value !== undefined)),
      maxTokens: call.maxOutputTokens ?? room,
      ...(call.stopSequences && { stop: call.stopSequences }),
      ...(responseFormat?.type === 'json' && {
        jsonSchema: JSON.stringify(responseFormat.schema ?? { type: 'object' }),
      }),
      ...(call.abortSignal && { signal: call.abortSignal }),
    });
  }
}

/** The prompt with a turn at its end that the answer stands in: the last one, if it is the assistant's. */
function turnsOf(prompt: readonly LanguageModelV3Message[]): Turn[] {
  const turns = prompt.map(({ role, content }): Turn => ({
    role,
    content: typeof content === 'string' ? [content] : content.map(contentOf),
    open: false,
  }));
  const last = turns.at(-1);
  if (last?.role === 'assistant') turns[turns.length - 1] = { ...last, open: true };
  else turns.push({ role: 'assistant', content: [], open: true });
  return turns;
}

function contentOf(part: Exclude<LanguageModelV3Message['content'], string>[number]): Content {
  if (part.type === 'text') return part.text;
  if (part.type === 'file' && part.mediaType.startsWith('image/')) {
    const { data, mediaType } = part;
    const isUrl = typeof data !== 'string' || /^(https?|data):/.test(data);
    return { image: isUrl ? data : `data:${mediaType};base64,${data}` };
  }
  const what = part.type === 'file' ? `a file of type ${part.mediaType}` : `a part of type ${part.type}`;
  throw new SglangError('unsupported', `sglang takes text and images in a prompt, not ${what}`, 'prompt');
}

function warningsOf({ tools = [] }: LanguageModelV3CallOptions): SharedV3Warning[] {
  return tools.length > 0 ? [{ type: 'unsupported', feature: 'tools', details: 'tools are not called yet' }] : [];
}

function endOf({ promptTokens, completionTokens, cachedTokens, finishReason }: GenMeta) {
  const usage: LanguageModelV3Usage = {
    inputTokens: {
      total: promptTokens,
      noCache: promptTokens - cachedTokens,
      cacheRead: cachedTokens,
      cacheWrite: undefined,
    },
    outputTokens: { total: completionTokens, text: completionTokens, reasoning: undefined },
  };
  const unified: 'stop' | 'length' | 'other' = finishReason === 'abort' ? 'other' : finishReason;
  return { usage, finishReason: { unified, raw: finishReason } };
}
