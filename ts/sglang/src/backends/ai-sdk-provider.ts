/**
 * A backend as a provider of the AI SDK (its language model specification v3). Laws: a whole answer is its stream put
 * together; what is asked for and not had is warned of.
 */
import type {
  LanguageModelV3,
  LanguageModelV3CallOptions,
  LanguageModelV3Content,
  LanguageModelV3StreamPart,
  LanguageModelV3Usage,
  ProviderV3,
  SharedV3Warning,
} from '@ai-sdk/provider';
import { SglangError } from '../engine/errors.ts';
import type { FinishReason } from '../engine/types.ts';
import { answerWithCalls, seedOfPart, type AnswerPiece, type Writer } from '../templates/answer.ts';
import { callsOf, type Calls, type Tool } from '../templates/tools.ts';
import { tokenOf, turnsOf, turnsWithTools } from './ai-sdk-prompt.ts';
import type { Backend, Delta, GenerateOptions, GenMeta, Turn } from './backend.ts';

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
    const calls: LanguageModelV3Content[] = [];
    let text = '';
    for await (const part of this.#parts(call)) {
      if (part.type === 'text-delta') text += part.delta;
      if (part.type === 'tool-call') calls.push(part);
      if (part.type !== 'finish') continue;
      const { usage, finishReason } = part;
      const content = text === '' ? calls : [{ type: 'text' as const, text }, ...calls];
      return { content, usage, finishReason, warnings: warningsOf(call) };
    }
    throw new SglangError('engine_closed', `${this.modelId}: the answer broke off`);
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
    yield { type: 'stream-start', warnings: warningsOf(call) };
    yield { type: 'response-metadata', modelId: this.modelId };
    yield* partsOf(this.#answer(call));
  }

  #answer(call: LanguageModelV3CallOptions): AsyncIterable<AnswerPiece> {
    const options = this.#optionsOf(call);
    const calls = callsIn(call, this.backend);
    if (!calls) return freely(this.backend.stream(turnsOf(call.prompt), options));
    return answerWithCalls(writerOf(this.backend, turnsWithTools(this.backend, call.prompt, calls), options), calls);
  }

  #optionsOf(call: LanguageModelV3CallOptions): GenerateOptions & { maxTokens: number } {
    const { temperature, topP, topK, frequencyPenalty, presencePenalty, seed, responseFormat } = call;
    const room = this.options.maxOutputTokens ?? (this.backend.kind === 'engine' ? Infinity : 1024);
    const given = Object.entries({ temperature, topP, topK, frequencyPenalty, presencePenalty, seed });
    return {
      ...Object.fromEntries(given.filter(([, value]) => value !== undefined)),
      maxTokens: call.maxOutputTokens ?? room,
      ...(call.stopSequences && { stop: call.stopSequences }),
      ...(responseFormat?.type === 'json' && {
        jsonSchema: JSON.stringify(responseFormat.schema ?? { type: 'object' }),
      }),
      ...(call.abortSignal && { signal: call.abortSignal }),
    };
  }
}

function callsIn({ tools = [], toolChoice }: LanguageModelV3CallOptions, backend: Backend): Calls | undefined {
  const functions = tools.flatMap((tool): Tool[] => {
    if (tool.type !== 'function') return [];
    const { name, description, inputSchema } = tool;
    const parameters = inputSchema as Record<string, unknown>;
    return [{ type: 'function', function: { name, ...(description !== undefined && { description }), parameters } }];
  });
  const choice = toolChoice?.type === 'tool' ? { function: { name: toolChoice.toolName } } : toolChoice?.type;
  const { chatTemplate = null } = 'model' in backend ? (backend.model as { chatTemplate?: string | null }) : {};
  return callsOf({ tools: functions, ...(choice && { tool_choice: choice }) }, { chatTemplate });
}

/** Parts of calls heed neither the caller's stop strings nor the format of its answer. */
function writerOf(
  backend: Backend,
  turns: (answer: string) => readonly Turn[],
  { stop = [], jsonSchema, maxTokens, seed, ...sampling }: GenerateOptions & { maxTokens: number },
): Writer {
  return {
    tokenOf: (text) => tokenOf(backend, text),
    write: async function* (answer, options, spent, parts) {
      const free = 'stop' in options;
      const own = free ? { ...options, ...(jsonSchema !== undefined && { jsonSchema }) } : options;
      const pieces = backend.stream(turns(answer), {
        ...sampling,
        ...own,
        ...(free && { stop: [...stop, ...options.stop] }),
        seed: seedOfPart(seed, parts),
        maxTokens: maxTokens - spent,
      });
      for await (const { text, meta } of pieces) yield { text, ...(meta && { meta: partMeta(meta) }) };
    },
  };
}

async function* freely(pieces: AsyncIterable<Delta>): AsyncGenerator<AnswerPiece, void> {
  for await (const { text, meta } of pieces)
    yield { content: text, ...(meta && { meta: { ...partMeta(meta), called: false } }) };
}

function partMeta({ finishReason: type, matched, ...counts }: GenMeta) {
  const reasons: Record<FinishReason['type'], FinishReason> = {
    stop: { type: 'stop', matched },
    length: { type: 'length', length: counts.completionTokens },
    abort: { type: 'abort', message: 'the backend ended it' },
  };
  return { ...counts, finishReason: reasons[type] };
}

/** A text or a call ends where the next thing begins. A call whose arguments were cut off is none. */
async function* partsOf(pieces: AsyncIterable<AnswerPiece>): AsyncGenerator<LanguageModelV3StreamPart, void> {
  const text = '0';
  let inText = false;
  let called: { toolCallId: string; toolName: string; input: string } | undefined;
  for await (const { content = '', begins, goesOn, meta } of pieces) {
    if (content !== '' && !inText) yield { type: 'text-start', id: text };
    inText ||= content !== '';
    if (content !== '') yield { type: 'text-delta', id: text, delta: content };
    if (begins || meta) {
      if (inText) yield { type: 'text-end', id: text };
      inText = false;
      if (called) yield { type: 'tool-input-end', id: called.toolCallId };
      if (called && isJson(called.input)) yield { type: 'tool-call', ...called };
      called = begins && { toolCallId: begins.id, toolName: begins.name, input: '' };
    }
    if (begins) yield { type: 'tool-input-start', id: begins.id, toolName: begins.name };
    if (called && goesOn?.arguments) {
      called.input += goesOn.arguments;
      yield { type: 'tool-input-delta', id: called.toolCallId, delta: goesOn.arguments };
    }
    if (meta) yield { type: 'finish', ...endOf(meta) };
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function warningsOf({ tools = [] }: LanguageModelV3CallOptions): SharedV3Warning[] {
  return tools.flatMap((tool) =>
    tool.type === 'function'
      ? []
      : [{ type: 'unsupported', feature: `tool ${tool.id}`, details: 'only functions can be called' }],
  );
}

function endOf({
  promptTokens,
  completionTokens,
  cachedTokens,
  finishReason,
  called,
}: NonNullable<AnswerPiece['meta']>) {
  const usage: LanguageModelV3Usage = {
    inputTokens: {
      total: promptTokens,
      noCache: promptTokens - cachedTokens,
      cacheRead: cachedTokens,
      cacheWrite: undefined,
    },
    outputTokens: { total: completionTokens, text: completionTokens, reasoning: undefined },
  };
  const { type } = finishReason;
  const names = { stop: called ? 'tool-calls' : 'stop', length: 'length', abort: 'other' } as const;
  return { usage, finishReason: { unified: names[type], raw: type } };
}
