/**
 * OpenAI's API, there or at any address that speaks it. Laws: turns are messages and plain text is a user's message;
 * what the API has no field for is refused before anything is sent, unless the user allows to leave it out.
 */
import { SglangError } from '../engine/errors.ts';
import { nearestChoice } from '../lang/choices.ts';
import { contentText, plainText } from '../lang/prompt.ts';
import { refuseMethod, refuseUnsupported, type UnsupportedOptions } from './api-options.ts';
import type { Backend, Content, Delta, GenerateOptions, GenMeta, Selection, SelectOptions, Turn } from './backend.ts';
import { HttpServer, type HttpOptions } from './http.ts';
import { imageUrl } from './image-source.ts';
import { choiceRoom, choiceTurns, Repetition, valueSchemas, valueText, wholeOf, wrapped } from './json-values.ts';
import * as wire from './openai-wire.ts';

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
const COMPLETION_MODELS = /instruct$|^davinci|^babbage|^text-/;
/** These sample at a temperature of their own. */
const REASONING_MODELS = /^(o\d|gpt-5)/;
/** These call tools whose input follows a grammar. */
const GRAMMAR_MODELS = /^gpt-5/;
const INSTEAD = 'use choices or schema with a chat model, or a RuntimeEndpoint or Engine';

type Message = { role: string; content: string | object[] };

/** A model of OpenAI or of a server with the same API. The key is `apiKey` or the environment's OPENAI_API_KEY. */
export class OpenAI implements Backend {
  readonly kind = 'openai';
  readonly isChatModel: boolean;
  readonly #options: OpenAIOptions;
  readonly #server: HttpServer;
  /** Whether this is OpenAI's own service, not another one with its API. */
  readonly #isOpenAI: boolean;
  /** Whether the model takes a JSON schema; found out once. */
  #takesSchemas = true;

  constructor(
    readonly model: string,
    options: OpenAIOptions = {},
  ) {
    const { baseURL = process.env.OPENAI_BASE_URL || OPENAI_URL, apiKey = process.env.OPENAI_API_KEY } = options;
    this.#isOpenAI = baseURL.replace(/\/+$/, '') === OPENAI_URL;
    if (!apiKey && this.#isOpenAI) {
      throw new SglangError('bad_request', 'OpenAI: no API key; set OPENAI_API_KEY or pass { apiKey }', 'apiKey');
    }
    this.isChatModel = options.isChatModel ?? !COMPLETION_MODELS.test(model);
    this.#options = options;
    this.#server = new HttpServer(baseURL, { ...options, apiKey, headers: headersOf(options) });
  }

  async *stream(turns: readonly Turn[], options: GenerateOptions): AsyncGenerator<Delta, void> {
    const { valueType, jsonSchema, regex, lark } = options;
    if (valueType && this.isChatModel && !this.#options.extensions) {
      return yield await this.#value(turns, options, valueSchemas[valueType]);
    }
    const grammar = regex ?? lark;
    if (grammar !== undefined && GRAMMAR_MODELS.test(this.model)) {
      const { regex: _r, lark: _l, ...rest } = options;
      return yield await this.#called(turns, wire.grammarTool(regex === undefined ? 'lark' : 'regex', grammar), rest);
    }
    const schema = jsonSchema === undefined ? undefined : (JSON.parse(jsonSchema) as { type?: string });
    if (schema && schema.type !== 'object' && this.isChatModel && !this.#options.extensions) {
      return yield await this.#value(turns, { ...options, jsonSchema: undefined }, schema);
    }
    const format = schema && { response_format: wire.schemaFormat(schema) };
    yield* this.#complete({ ...(await this.#prompt(turns)), ...format }, options, this.#begun(turns));
  }

  /** Asks for one of an enumeration where the model takes schemas; else for a free answer, and takes the nearest. */
  async select(
    turns: readonly Turn[],
    choices: readonly string[],
    { method, temperature, signal }: SelectOptions,
  ): Promise<Selection> {
    refuseMethod(`${this.model}: OpenAI's API`, method, this.#options);
    const greedy = REASONING_MODELS.test(this.model) ? undefined : 0;
    const options = { temperature: temperature ?? greedy, signal, maxTokens: choiceRoom(choices) };
    const asked = this.isChatModel ? choiceTurns(turns, choices) : turns;
    const { text, meta } =
      (await this.#oneOf(asked, choices, options)) ??
      (await wholeOf(this.#complete(await this.#prompt(asked), options)));
    return { index: nearestChoice(text, choices), scores: null, meta };
  }

  async #oneOf(
    turns: readonly Turn[],
    choices: readonly string[],
    options: GenerateOptions,
  ): Promise<Required<Delta> | undefined> {
    if (!this.isChatModel || !this.#takesSchemas) return undefined;
    try {
      return await this.#value(turns, options, { type: 'string', enum: choices });
    } catch (error) {
      if (!(error instanceof SglangError) || error.status !== 400) throw error;
      this.#takesSchemas = false;
      return undefined;
    }
  }

  /** A JSON value of a schema; the API wants an object around it. */
  async #value(turns: readonly Turn[], options: GenerateOptions, schema: object): Promise<Required<Delta>> {
    const body = { ...(await this.#prompt(turns)), response_format: wire.schemaFormat(wrapped(schema)) };
    const { text, meta } = await wholeOf(this.#complete(body, { ...options, regex: undefined, stop: [] }));
    return { text: valueText(text, 'enum' in schema), meta };
  }

  /** What the model passes to a tool. */
  async #called(turns: readonly Turn[], tool: object, options: GenerateOptions): Promise<Delta> {
    this.#refuse({ ...options, stop: undefined });
    const body = { model: this.model, ...(await this.#prompt(turns)), ...tool, ...this.#sampling(options) };
    const answer = (await this.#server.post('/chat/completions', body, options.signal)) as wire.ToolAnswer;
    const [choice] = answer.choices;
    const text = choice?.message.tool_calls?.[0]?.custom?.input;
    if (text === undefined) throw new SglangError('bad_request', `${this.model} did not answer by the grammar`);
    return { text, meta: { ...wire.countsOf(answer.usage), ...wire.endOf(choice!.finish_reason) } };
  }

  /** `begun` is what the answer may repeat before it goes on. */
  async *#complete(prompt: object, options: GenerateOptions, begun = ''): AsyncGenerator<Delta, void> {
    this.#refuse(options);
    const path = this.isChatModel ? '/chat/completions' : '/completions';
    const streamed = { stream: true, stream_options: { include_usage: true } };
    const body = { model: this.model, ...prompt, ...this.#sampling(options), ...streamed };
    const counts = { promptTokens: 0, completionTokens: 0, cachedTokens: 0 };
    const meta: GenMeta = { ...counts, finishReason: 'abort', matched: null };
    const repeated = new Repetition(begun);
    for await (const event of this.#server.events(path, body, options.signal)) {
      const { choices: [choice] = [], usage } = event as wire.Piece;
      if (choice?.delta?.refusal)
        throw new SglangError('bad_request', `${this.model} refused: ${choice.delta.refusal}`);
      const text = repeated.cut(choice?.delta?.content ?? choice?.text ?? '');
      if (text !== '') yield { text };
      if (choice?.logprobs) meta.outputLogprobs = [...(meta.outputLogprobs ?? []), ...wire.logprobsOf(choice.logprobs)];
      if (choice?.finish_reason) Object.assign(meta, wire.endOf(choice.finish_reason, choice.matched_stop));
      Object.assign(meta, usage && wire.countsOf(usage));
    }
    if (meta.finishReason === 'abort') throw new SglangError('engine_closed', `${this.model}: the answer broke off`);
    yield { text: repeated.rest(), meta };
  }

  #sampling(options: GenerateOptions): object {
    const { maxTokens = 128, temperature, seed, stop = [], returnLogprob, topLogprobsNum = 0 } = options;
    const limit = this.isChatModel && this.#isOpenAI ? 'max_completion_tokens' : 'max_tokens';
    const renamed = {
      top_p: options.topP,
      frequency_penalty: options.frequencyPenalty,
      presence_penalty: options.presencePenalty,
      logit_bias: options.logitBias,
    };
    const chat = { logprobs: true, ...(topLogprobsNum > 0 && { top_logprobs: topLogprobsNum }) };
    return {
      ...{ [limit]: maxTokens, temperature, ...renamed, seed },
      ...(stop.length > 0 && { stop }),
      ...(returnLogprob && (this.isChatModel ? chat : { logprobs: topLogprobsNum })),
      ...(this.#options.extensions && wire.extensionFields(options)),
    };
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

  #refuse(options: GenerateOptions): void {
    const common = ['temperature', 'topP', 'frequencyPenalty', 'presencePenalty', 'logitBias', 'stop', 'seed'] as const;
    const added = ['topK', 'minP', 'repetitionPenalty', 'minTokens', 'ignoreEos', 'stopTokenIds'] as const;
    const grammars = ['regex', 'ebnf', 'lark'] as const;
    const supported = [
      ...[...common, 'returnLogprob' as const],
      ...(this.isChatModel ? (['jsonSchema'] as const) : []),
      ...(this.#options.extensions ? [...added, ...grammars] : []),
    ];
    refuseUnsupported(`${this.model}: OpenAI's API`, options, supported, this.#options, INSTEAD);
  }
}

function headersOf({ organization, project, headers }: OpenAIOptions): Record<string, string> {
  const { OPENAI_ORG_ID: org = '', OPENAI_PROJECT_ID: ownProject = '' } = process.env;
  const named = { 'openai-organization': organization ?? org, 'openai-project': project ?? ownProject };
  return { ...Object.fromEntries(Object.entries(named).filter(([, value]) => value !== '')), ...headers };
}

async function toMessage({ role, content }: Turn): Promise<Message> {
  const [first] = content;
  const plain = content.length === 1 && typeof first === 'string';
  return { role: role ?? 'user', content: plain ? first : await Promise.all(content.map(toPart)) };
}

async function toPart(piece: Content): Promise<object> {
  if (typeof piece === 'string') return { type: 'text', text: piece };
  return { type: 'image_url', image_url: { url: await imageUrl(piece.image) } };
}
