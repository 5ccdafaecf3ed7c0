/**
 * OpenAI's API, there or at any address that speaks it. Laws: turns are messages and plain text is a user's message;
 * options that the API has no field for are left out, except constraints: these are refused, since the program relies
 * on them.
 */
import { SglangError } from '../engine/errors.ts';
import { nearestChoice } from '../lang/choices.ts';
import { plainText } from '../lang/prompt.ts';
import type { Backend, Content, Delta, GenerateOptions, GenMeta, Selection, SelectOptions, Turn } from './backend.ts';
import { HttpServer, type HttpOptions } from './http.ts';
import { imageUrl } from './image-source.ts';

export interface OpenAIOptions extends HttpOptions {
  /** Default: the environment's OPENAI_BASE_URL, then OpenAI itself. */
  baseURL?: string;
  /** False for models of `/completions`. Default: by the model's name. */
  isChatModel?: boolean;
}

const OPENAI_URL = 'https://api.openai.com/v1';
const COMPLETION_MODELS = /instruct$|^davinci|^babbage|^text-/;

type Message = { role: string; content: string | object[] };

/** What is read of a streamed piece, of chat and of plain completions. */
interface Piece {
  choices?: {
    delta?: { content?: string | null; refusal?: string | null };
    text?: string;
    finish_reason?: string | null;
    matched_stop?: string | number | null;
  }[];
  usage?: {
    prompt_tokens: number;
    completion_tokens: number;
    prompt_tokens_details?: { cached_tokens?: number } | null;
  } | null;
}

/** A model of OpenAI or of a server with the same API. The key is `apiKey` or the environment's OPENAI_API_KEY. */
export class OpenAI implements Backend {
  readonly kind = 'openai';
  readonly isChatModel: boolean;
  readonly #server: HttpServer;
  readonly #limitName: string;
  /** Whether the model takes a JSON schema; found out once. */
  #takesSchemas = true;

  constructor(
    readonly model: string,
    options: OpenAIOptions = {},
  ) {
    const { baseURL = process.env.OPENAI_BASE_URL || OPENAI_URL, apiKey = process.env.OPENAI_API_KEY } = options;
    if (!apiKey && baseURL === OPENAI_URL) {
      throw new SglangError('bad_request', 'OpenAI: no API key; set OPENAI_API_KEY or pass { apiKey }', 'apiKey');
    }
    this.isChatModel = options.isChatModel ?? !COMPLETION_MODELS.test(model);
    this.#server = new HttpServer(baseURL, { ...options, apiKey });
    this.#limitName = this.isChatModel && baseURL === OPENAI_URL ? 'max_completion_tokens' : 'max_tokens';
  }

  async *stream(turns: readonly Turn[], options: GenerateOptions): AsyncGenerator<Delta, void> {
    const { valueType, jsonSchema } = options;
    if (valueType && this.isChatModel) return yield await this.#value(turns, options, valueSchemas[valueType]);
    this.#refuseUnsupported(options);
    const format = jsonSchema === undefined ? {} : { response_format: schemaFormat(JSON.parse(jsonSchema)) };
    yield* this.#complete({ ...(await this.#prompt(turns)), ...format }, options);
  }

  /** Asks for one of an enumeration where the model takes schemas; else for a free answer, and takes the nearest. */
  async select(
    turns: readonly Turn[],
    choices: readonly string[],
    { temperature = 0, signal }: SelectOptions,
  ): Promise<Selection> {
    const room = 32 + Math.max(...choices.map((choice) => choice.length));
    const options = { temperature, signal, maxTokens: room };
    const asked = this.isChatModel ? [...turns.map(closed), question(choices)] : turns;
    const { text, meta } =
      (await this.#oneOf(asked, choices, options)) ?? (await this.#whole(await this.#prompt(asked), options));
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
    const wrapped = { type: 'object', properties: { value: schema }, required: ['value'], additionalProperties: false };
    const { text, meta } = await this.#whole(
      { ...(await this.#prompt(turns)), response_format: schemaFormat(wrapped) },
      { ...options, stop: [] },
    );
    return { text: valueText(text, 'enum' in schema), meta };
  }

  async #whole(body: object, options: GenerateOptions): Promise<Required<Delta>> {
    let text = '';
    let meta: GenMeta | undefined;
    for await (const delta of this.#complete(body, options)) {
      text += delta.text;
      meta = delta.meta;
    }
    return { text, meta: meta! };
  }

  async *#complete(prompt: object, options: GenerateOptions): AsyncGenerator<Delta, void> {
    const path = this.isChatModel ? '/chat/completions' : '/completions';
    const body = {
      model: this.model,
      ...prompt,
      ...this.#sampling(options),
      stream: true,
      stream_options: { include_usage: true },
    };
    const meta: GenMeta = {
      promptTokens: 0,
      completionTokens: 0,
      cachedTokens: 0,
      finishReason: 'abort',
      matched: null,
    };
    for await (const event of this.#server.events(path, body, options.signal)) {
      const { choices: [choice] = [], usage } = event as Piece;
      if (choice?.delta?.refusal)
        throw new SglangError('bad_request', `${this.model} refused: ${choice.delta.refusal}`);
      const text = choice?.delta?.content ?? choice?.text ?? '';
      if (text !== '') yield { text };
      Object.assign(meta, usage && countsOf(usage), choice?.finish_reason && endOf(choice));
    }
    if (meta.finishReason === 'abort') throw new SglangError('engine_closed', `${this.model}: the answer broke off`);
    yield { text: '', meta };
  }

  #sampling(options: GenerateOptions): object {
    const {
      maxTokens = 128,
      temperature,
      topP,
      frequencyPenalty,
      presencePenalty,
      logitBias,
      seed,
      stop = [],
    } = options;
    const renamed = {
      top_p: topP,
      frequency_penalty: frequencyPenalty,
      presence_penalty: presencePenalty,
      logit_bias: logitBias,
    };
    return { [this.#limitName]: maxTokens, temperature, ...renamed, seed, ...(stop.length > 0 && { stop }) };
  }

  async #prompt(turns: readonly Turn[]): Promise<object> {
    if (!this.isChatModel) return { prompt: plainText(turns) };
    const messages = await Promise.all(turns.filter(({ content }) => content.length > 0).map(toMessage));
    if (messages.length === 0)
      throw new SglangError('bad_request', `${this.model}: the prompt is empty; a chat model needs a message`);
    return { messages };
  }

  #refuseUnsupported({ regex, ebnf, jsonSchema }: GenerateOptions): void {
    const name = regex !== undefined ? 'regex' : ebnf !== undefined ? 'ebnf' : undefined;
    const refused = name ?? (jsonSchema !== undefined && !this.isChatModel ? 'schema' : undefined);
    if (!refused) return;
    const instead = 'use choices or schema with a chat model, or a RuntimeEndpoint or Engine';
    throw new SglangError('unsupported', `${this.model}: OpenAI's API takes no ${refused} here; ${instead}`, refused);
  }
}

const valueSchemas = {
  int: { type: 'integer' },
  float: { type: 'number' },
  bool: { type: 'boolean' },
  string: { type: 'string' },
} as const;

function schemaFormat(schema: object): object {
  return { type: 'json_schema', json_schema: { name: 'output', schema, strict: true } };
}

/** The value of `{"value": …}` as the language writes it; options of an enumeration without quotes. */
function valueText(text: string, bare: boolean): string {
  try {
    const { value } = JSON.parse(text) as { value: unknown };
    return bare ? String(value) : JSON.stringify(value);
  } catch {
    return text;
  }
}

function question(choices: readonly string[]): Turn {
  const options = choices.map((choice) => JSON.stringify(choice)).join(', ');
  return { role: 'user', content: [`Continue with exactly one of these and nothing else: ${options}`], open: false };
}

function closed(turn: Turn): Turn {
  return { ...turn, open: false };
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

function countsOf({
  prompt_tokens,
  completion_tokens,
  prompt_tokens_details,
}: NonNullable<Piece['usage']>): Partial<GenMeta> {
  return {
    promptTokens: prompt_tokens,
    completionTokens: completion_tokens,
    cachedTokens: prompt_tokens_details?.cached_tokens ?? 0,
  };
}

function endOf({ finish_reason, matched_stop }: NonNullable<Piece['choices']>[number]): Partial<GenMeta> {
  return { finishReason: finish_reason === 'length' ? 'length' : 'stop', matched: matched_stop ?? null };
}
