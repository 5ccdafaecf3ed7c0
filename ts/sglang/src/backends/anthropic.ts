/**
 * Anthropic's Messages API. Laws: system turns are the system prompt, plain text is a user's message, and an assistant
 * turn that was begun is gone on with. A schema is asked for as the input of a tool that the model must call.
 */
import { SglangError } from '../engine/errors.ts';
import { contentText } from '../lang/prompt.ts';
import { finite, modelName, type UnsupportedOptions } from './api-options.ts';
import type { Content, GenerateOptions, GenMeta, Turn } from './backend.ts';
import { HttpServer, type HttpOptions } from './http.ts';
import { base64Parts, imageUrl } from './image-source.ts';
import { Repetition } from './json-values.ts';
import { SchemaBackend, textOrParts, type Asked, type News } from './schema-backend.ts';

export interface AnthropicOptions extends HttpOptions, UnsupportedOptions {
  /** Default: the environment's ANTHROPIC_BASE_URL, then Anthropic itself. */
  baseURL?: string;
}

const ANTHROPIC_URL = 'https://api.anthropic.com';
const VERSION = '2023-06-01';
const TOOL = 'answer';

interface Usage {
  input_tokens?: number;
  output_tokens?: number;
  cache_read_input_tokens?: number | null;
  cache_creation_input_tokens?: number | null;
}

/** What is read of the events of a stream. */
interface Event {
  type: string;
  message?: { usage: Usage };
  delta?: { type?: string; text?: string; partial_json?: string; stop_reason?: string; stop_sequence?: string | null };
  usage?: Usage;
}

/** A model of Anthropic. The key is `apiKey` or the environment's ANTHROPIC_API_KEY. */
export class Anthropic extends SchemaBackend {
  readonly kind = 'anthropic';
  protected override readonly choiceTemperature = 0;
  readonly #server: HttpServer;

  constructor(
    readonly model: string,
    options: AnthropicOptions = {},
  ) {
    super(
      `${modelName(model, 'Anthropic')}: Anthropic's API`,
      ['temperature', 'topP', 'topK', 'stop', 'jsonSchema'],
      options,
    );
    const { baseURL = process.env.ANTHROPIC_BASE_URL || ANTHROPIC_URL, apiKey = process.env.ANTHROPIC_API_KEY } =
      options;
    if (!apiKey && baseURL === ANTHROPIC_URL) {
      throw new SglangError('bad_request', 'Anthropic: no API key; set ANTHROPIC_API_KEY or pass { apiKey }', 'apiKey');
    }
    const headers = { ...(apiKey && { 'x-api-key': apiKey }), 'anthropic-version': VERSION, ...options.headers };
    this.#server = new HttpServer(baseURL, { ...options, apiKey: undefined, headers });
  }

  /** With a schema the text is JSON: what the model passes to a tool that takes it. */
  protected async *answer(...[turns, options, schema]: Asked): AsyncGenerator<News, void> {
    const { begun, ...prompt } = await promptOf(turns, schema === undefined);
    const body = {
      model: this.model,
      ...prompt,
      ...samplingOf(this.api, options),
      ...(schema && toolOf(schema)),
      stream: true,
    };
    const repeated = new Repetition(begun);
    for await (const event of this.#server.events('/v1/messages', body, options.signal)) {
      const { type, message, delta, usage = message?.usage } = event as Event;
      yield {
        text: repeated.cut(delta?.text ?? delta?.partial_json ?? ''),
        ...(usage && countsOf(usage)),
        ...(type === 'message_delta' && delta?.stop_reason && this.#endOf(delta)),
      };
    }
    yield { text: repeated.rest() };
  }

  #endOf({ stop_reason, stop_sequence }: NonNullable<Event['delta']>): Pick<GenMeta, 'finishReason' | 'matched'> {
    if (stop_reason === 'refusal') throw new SglangError('bad_request', `${this.model} refused to answer`);
    return { finishReason: stop_reason === 'max_tokens' ? 'length' : 'stop', matched: stop_sequence ?? null };
  }
}

function samplingOf(
  api: string,
  { maxTokens = 128, temperature, topP, topK = -1, stop = [] }: GenerateOptions,
): object {
  const lists = { ...(topK > 0 && { top_k: topK }), ...(stop.length > 0 && { stop_sequences: stop }) };
  return { max_tokens: finite(api, maxTokens), temperature, top_p: topP, ...lists };
}

function toolOf(schema: object): object {
  const tool = { name: TOOL, description: 'Takes the answer, and nothing else.', input_schema: schema };
  return { tools: [tool], tool_choice: { type: 'tool', name: TOOL } };
}

/**
 * Turns as the API wants them. It takes no white space at the end of an assistant's message that is gone on with, so
 * that is cut off (`begun`) and then expected at the start of the answer. Where a tool is called nothing is gone on with.
 */
async function promptOf(turns: readonly Turn[], goesOn: boolean) {
  const system = turns
    .filter(({ role }) => role === 'system')
    .map(contentText)
    .join('\n\n');
  const rest = turns.filter(({ role, content }) => role !== 'system' && content.length > 0);
  const last = rest.at(-1);
  const open = goesOn && last?.open && last.role === 'assistant' ? contentText(last) : '';
  const begun = /\s*$/.exec(open)![0];
  const messages = await Promise.all(rest.map(toMessage));
  if (begun !== '') messages[messages.length - 1] = { role: 'assistant', content: open.trimEnd() };
  if (open === '' && last?.role === 'assistant') messages.push({ role: 'user', content: 'Go on.' });
  return { ...(system !== '' && { system }), messages: messages.filter(({ content }) => content !== ''), begun };
}

async function toMessage({ role, content }: Turn): Promise<{ role: string; content: string | object[] }> {
  return { role: role === 'assistant' ? role : 'user', content: await textOrParts(content, toBlock) };
}

async function toBlock(piece: Content): Promise<object> {
  if (typeof piece === 'string') return { type: 'text', text: piece };
  const url = await imageUrl(piece.image);
  const [, media_type, data] = base64Parts(url) ?? [];
  const source = data === undefined ? { type: 'url', url } : { type: 'base64', media_type, data };
  return { type: 'image', source };
}

/** Tokens that were read from or written into a cache are not among `input_tokens`. */
function countsOf(usage: Usage): Partial<GenMeta> {
  const { input_tokens, output_tokens, cache_read_input_tokens, cache_creation_input_tokens } = usage;
  const cachedTokens = cache_read_input_tokens ?? 0;
  const promptTokens = (input_tokens ?? 0) + cachedTokens + (cache_creation_input_tokens ?? 0);
  return {
    ...(input_tokens !== undefined && input_tokens !== null && { promptTokens, cachedTokens }),
    ...(output_tokens !== undefined && { completionTokens: output_tokens }),
  };
}
