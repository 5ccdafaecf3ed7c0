/**
 * OpenAI's API, there or at any address that speaks it. Laws: turns are messages and plain text is a user's message;
 * what the API has no field for is refused before anything is sent, unless the user allows to leave it out.
 */
import { SglangError } from '../engine/errors.ts';
import { contentText, plainText } from '../lang/prompt.ts';
import { finite, modelName, type UnsupportedOptions } from './api-options.ts';
import type { Content, Delta, GenerateOptions, Turn } from './backend.ts';
import { HttpServer, isRefusedForm, type HttpOptions } from './http.ts';
import { imageUrl } from './image-source.ts';
import { choiceTurns, Repetition, wholeOf } from './json-values.ts';
import * as wire from './openai-wire.ts';
import { SchemaBackend, textOrParts, type Asked, type News, type ToChoose } from './schema-backend.ts';
import { UntilStop } from './stop-strings.ts';
import { wireNames } from './wire-names.ts';

export interface OpenAIOptions extends HttpOptions, UnsupportedOptions {
  /** Default: the environment's OPENAI_BASE_URL, then OpenAI itself. */
  baseURL?: string;
  /** Default: the environment's OPENAI_ORG_ID. */
  organization?: string;
  /** Default: the environment's OPENAI_PROJECT_ID. */
  project?: string;
  /** False for models of `/completions`. Default: by the model's name. */
  isChatModel?: boolean;
  /** The server knows SGLang's additional fields (`top_k`, `regex`, `continue_final_message`, …). Default false. */
  extensions?: boolean;
}

const OPENAI_URL = 'https://api.openai.com/v1';
const COMPLETION_MODELS = /^gpt-3\.5-turbo-instruct|^davinci|^babbage|^text-/;
/** These sample at a temperature of their own. */
const REASONING_MODELS = /^(o\d|gpt-5)/;
/** These call tools whose input follows a grammar. */
const GRAMMAR_MODELS = /^gpt-5/;
const SAMPLING = [
  ...(['temperature', 'topP', 'frequencyPenalty', 'presencePenalty', 'logitBias', 'stop', 'seed'] as const),
  'returnLogprob' as const,
];
const SCHEMA = ['jsonSchema'] as const;
/** Of servers that know SGLang's fields. */
const EXTENSIONS = [
  ...(['topK', 'minP', 'repetitionPenalty', 'minTokens', 'ignoreEos', 'stopTokenIds'] as const),
  ...(['regex', 'ebnf', 'lark'] as const),
];
const INSTEAD = 'use choices or schema with a chat model, or a RuntimeEndpoint or Engine';

type Message = { role: string; content: string | object[] };

/** A model of OpenAI or of a server with the same API. The key is `apiKey` or the environment's OPENAI_API_KEY. */
export class OpenAI extends SchemaBackend {
  readonly kind = 'openai';
  readonly isChatModel: boolean;
  protected override readonly instead = INSTEAD;
  protected override readonly choiceTemperature: number | undefined;
  protected override readonly wraps: boolean;
  readonly #options: OpenAIOptions;
  readonly #server: HttpServer;
  /** Whether this is OpenAI's own service, not another one with its API. */
  readonly #isOpenAI: boolean;
  /** Whether the model takes a JSON schema; found out once. */
  #takesSchemas: boolean;

  constructor(
    readonly model: string,
    options: OpenAIOptions = {},
  ) {
    const { isChatModel = !COMPLETION_MODELS.test(model), extensions = false } = options;
    const supported = [...SAMPLING, ...(isChatModel ? SCHEMA : []), ...(extensions ? EXTENSIONS : [])];
    super(`${modelName(model, 'OpenAI')}: OpenAI's API`, supported, options);
    const { baseURL = process.env.OPENAI_BASE_URL || OPENAI_URL, apiKey = process.env.OPENAI_API_KEY } = options;
    this.#isOpenAI = baseURL.replace(/\/+$/, '') === OPENAI_URL;
    if (!apiKey && this.#isOpenAI) {
      throw new SglangError('bad_request', 'OpenAI: no API key; set OPENAI_API_KEY or pass { apiKey }', 'apiKey');
    }
    this.isChatModel = this.#takesSchemas = isChatModel;
    this.choiceTemperature = REASONING_MODELS.test(model) ? undefined : 0;
    this.wraps = isChatModel && !extensions;
    this.#options = options;
    this.#server = new HttpServer(baseURL, { ...options, apiKey, headers: headersOf(options) });
  }

  override async *stream(turns: readonly Turn[], options: GenerateOptions): AsyncGenerator<Delta, void> {
    const { regex, lark, ...rest } = options;
    const grammar = regex ?? lark;
    if (grammar === undefined || options.valueType || !GRAMMAR_MODELS.test(this.model))
      return yield* super.stream(turns, options);
    yield await this.#called(turns, wire.grammarTool(regex === undefined ? 'lark' : 'regex', grammar), rest);
  }

  /** Asks for one of an enumeration where the model takes schemas; else for a free answer. */
  protected override async choose(...[turns, options, choices]: ToChoose): Promise<Required<Delta>> {
    try {
      if (this.#takesSchemas) return await super.choose(turns, options, choices);
    } catch (error) {
      if (!isRefusedForm(error)) throw error;
    }
    const answer = await wholeOf(this.complete(this.isChatModel ? choiceTurns(turns, choices) : turns, options));
    // Only now it is known that the schema was refused, and not the prompt.
    this.#takesSchemas = false;
    return answer;
  }

  protected async *answer(...[turns, options, schema]: Asked): AsyncGenerator<News, void> {
    const format = schema && { response_format: wire.schemaFormat(schema) };
    const begun = schema ? '' : this.#begun(turns);
    // A stop string that is part of what was begun would end the model while it repeats that.
    const own = (options.stop ?? []).filter((stop) => begun.includes(stop));
    const streamed = { stream: true, stream_options: { include_usage: true } };
    const body = {
      model: this.model,
      ...(await this.#prompt(turns)),
      ...format,
      ...this.#sampling({ ...options, stop: options.stop?.filter((stop) => !own.includes(stop)) }),
      ...streamed,
    };
    const repeated = new Repetition(begun);
    const until = new UntilStop(own);
    const path = this.isChatModel ? '/chat/completions' : '/completions';
    for await (const event of this.#server.events(path, body, options.signal)) {
      const { choices: [choice] = [], usage } = event as wire.Piece;
      if (choice?.delta?.refusal)
        throw new SglangError('bad_request', `${this.model} refused: ${choice.delta.refusal}`);
      yield {
        text: until.cut(repeated.cut(choice?.delta?.content ?? choice?.text ?? '')),
        ...(choice?.logprobs && { outputLogprobs: wire.logprobsOf(choice.logprobs) }),
        ...(choice?.finish_reason && wire.endOf(choice.finish_reason, choice.matched_stop)),
        ...(usage && wire.countsOf(usage)),
      };
    }
    const text = until.cut(repeated.rest()) + until.rest();
    yield { text, ...(until.matched && { finishReason: 'stop', matched: until.matched }) };
  }

  /** What the model passes to a tool. */
  async #called(turns: readonly Turn[], tool: object, options: GenerateOptions): Promise<Delta> {
    this.refuse({ ...options, stop: undefined });
    const body = { model: this.model, ...(await this.#prompt(turns)), ...tool, ...this.#sampling(options) };
    const answer = (await this.#server.post('/chat/completions', body, options.signal)) as wire.ToolAnswer;
    const [choice] = answer.choices;
    const text = choice?.message.tool_calls?.[0]?.custom?.input;
    if (text === undefined) throw new SglangError('bad_request', `${this.model} did not answer by the grammar`);
    return { text, meta: { ...wire.countsOf(answer.usage), ...wire.endOf(choice!.finish_reason) } };
  }

  #sampling(options: GenerateOptions): object {
    const { stop = [], returnLogprob, topLogprobsNum = 0 } = options;
    const { temperature, seed, topP, frequencyPenalty, presencePenalty, logitBias } = options;
    const chat = { logprobs: true, ...(topLogprobsNum > 0 && { top_logprobs: topLogprobsNum }) };
    return {
      ...this.#limit(options),
      ...wireNames({ temperature, seed, topP, frequencyPenalty, presencePenalty, logitBias }),
      ...(stop.length > 0 && { stop }),
      ...(returnLogprob && (this.isChatModel ? chat : { logprobs: topLogprobsNum })),
      ...(this.#options.extensions && wire.extensionFields(options)),
    };
  }

  /** Chats have no limit unless they are given one; plain completions have one of their own, which is small. */
  #limit({ maxTokens = 128 }: GenerateOptions): object {
    if (this.isChatModel && maxTokens === Infinity) return {};
    const limit = this.isChatModel && this.#isOpenAI ? 'max_completion_tokens' : 'max_tokens';
    return { [limit]: finite(this.api, maxTokens) };
  }

  async #prompt(turns: readonly Turn[]): Promise<object> {
    if (!this.isChatModel) return { prompt: plainText(turns) };
    const messages = await Promise.all(turns.filter(({ content }) => content.length > 0).map(toMessage));
    if (messages.length === 0)
      throw new SglangError('bad_request', `${this.model}: the prompt is empty; a chat model needs a message`);
    const last = turns.at(-1)!;
    const goesOn = this.#options.extensions && last.open && last.role === 'assistant' && last.content.length > 0;
    return { messages, ...(goesOn && { continue_final_message: true, add_generation_prompt: false }) };
  }

  /** OpenAI does not go on with a message that was begun; its models write it anew, often from its first word. */
  #begun(turns: readonly Turn[]): string {
    const last = turns.at(-1);
    return this.#isOpenAI && this.isChatModel && last?.role === 'assistant' ? contentText(last) : '';
  }
}

function headersOf({ organization, project, headers }: OpenAIOptions): Record<string, string> {
  const { OPENAI_ORG_ID: org = '', OPENAI_PROJECT_ID: ownProject = '' } = process.env;
  const named = { 'openai-organization': organization ?? org, 'openai-project': project ?? ownProject };
  return { ...Object.fromEntries(Object.entries(named).filter(([, value]) => value !== '')), ...headers };
}

async function toMessage({ role, content }: Turn): Promise<Message> {
  return { role: role ?? 'user', content: await textOrParts(content, toPart) };
}

async function toPart(piece: Content): Promise<object> {
  if (typeof piece === 'string') return { type: 'text', text: piece };
  return { type: 'image_url', image_url: { url: await imageUrl(piece.image) } };
}
