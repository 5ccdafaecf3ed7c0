/**
 * The AI SDK, both ways (its language model specification v3): any of its models as a backend, any backend as one of
 * its models. Law: what one side asks for and the other lacks is said, by an error here and by a warning there.
 *
 * @module ai-sdk
 */
import type {
  LanguageModelV3,
  LanguageModelV3FilePart,
  LanguageModelV3Message,
  LanguageModelV3StreamPart,
  SharedV3Warning,
} from '@ai-sdk/provider';
import { SglangError } from '../engine/errors.ts';
import { contentText } from '../lang/prompt.ts';
import type { UnsupportedOptions } from './api-options.ts';
import type { Backend, Content, GenMeta, Turn } from './backend.ts';
import { base64Parts, imageUrl } from './image-source.ts';
import { SchemaBackend, type Asked, type News } from './schema-backend.ts';

export { createSglang, type SglangProvider, type SglangProviderOptions } from './ai-sdk-provider.ts';

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

  protected async *answer(...[turns, options, schema]: Asked): AsyncGenerator<News, void> {
    const { maxTokens = 128, temperature, topP, topK = -1, seed, stop = [], signal } = options;
    const { stream } = await this.model.doStream({
      prompt: await Promise.all(turns.filter(({ content }) => content.length > 0).map((turn) => this.#message(turn))),
      ...(maxTokens !== Infinity && { maxOutputTokens: maxTokens }),
      ...{ temperature, topP, seed, abortSignal: signal },
      ...{ frequencyPenalty: options.frequencyPenalty, presencePenalty: options.presencePenalty },
      ...(topK > 0 && { topK }),
      ...(stop.length > 0 && { stopSequences: [...stop] }),
      ...(schema && { responseFormat: { type: 'json', schema, name: 'output' } }),
    });
    for await (const part of stream as unknown as AsyncIterable<LanguageModelV3StreamPart>) {
      if (part.type === 'error') throw part.error;
      if (part.type === 'stream-start') this.#heed(part.warnings);
      if (part.type === 'text-delta') yield { text: part.delta };
      if (part.type === 'finish') yield this.#metaOf(part);
    }
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
    const [, type, content] = base64Parts(url) ?? [];
    if (type && content !== undefined) return { type: 'file', mediaType: type, data: content };
    const patterns = Object.entries(await this.model.supportedUrls).filter(([type]) => /^(\*|image)/.test(type));
    const fetches = patterns.some(([, list]) => list.some((pattern) => pattern.test(url.toLowerCase())));
    if (fetches) return { type: 'file', mediaType: 'image/*', data: new URL(url) };
    const response = await fetch(url);
    if (!response.ok) throw new SglangError('bad_request', `image ${url}: ${response.status}`, 'image');
    const mediaType = response.headers.get('content-type') ?? 'image/*';
    return { type: 'file', mediaType, data: new Uint8Array(await response.arrayBuffer()) };
  }
}
