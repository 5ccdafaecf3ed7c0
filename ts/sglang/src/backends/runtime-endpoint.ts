/**
 * A server that speaks SGLang's native API, this project's or the original. Law: only what both understand is sent,
 * and a field that one of them leaves out is done without.
 */
import { SglangError } from '../engine/errors.ts';
import type { FinishReason, ImageInput, RequestStanding, SamplingParams, TokenLogprob } from '../engine/types.ts';
import { chatTemplateOf, type ChatTemplate } from '../templates/chat-template.ts';
import type { RenderedPrompt } from '../templates/turns.ts';
import type { Delta, GenerateOptions, GenMeta, OutputLogprob } from './backend.ts';
import { HttpServer, isRefusedForm, type HttpOptions } from './http.ts';
import { imageUrl } from './image-source.ts';
import { genMeta, LocalBackend, samplingParams, type TextModel } from './local.ts';
import { wireNames } from './wire-names.ts';

export interface RuntimeEndpointOptions extends HttpOptions, RequestStanding {
  /** Jinja source or the name of a built-in family, in place of what the server says. */
  chatTemplate?: string;
}

/** The backend of a server at `url`, such as `http://localhost:30000`. */
export class RuntimeEndpoint extends LocalBackend {
  constructor(url: string, { chatTemplate, priority, cacheSalt, ...http }: RuntimeEndpointOptions = {}) {
    super(new RemoteModel(new HttpServer(url, http), chatTemplate, { priority, cacheSalt }));
  }
}

/** A result of `/generate`, as far as it is read. */
interface WireResult {
  text: string;
  meta_info: {
    finish_reason:
      | null
      | { type: 'stop'; matched?: string | number }
      | { type: 'length'; length: number }
      | { type: 'abort'; message: string };
    prompt_tokens: number;
    completion_tokens: number;
    cached_tokens?: number;
    input_token_logprobs?: WireLogprob[];
    output_token_logprobs?: WireLogprob[];
    output_top_logprobs?: (WireLogprob[] | null)[];
  };
}

type WireLogprob = [logprob: number | null, tokenId: number, text?: string | null];

interface WireModel {
  model_path: string;
  chat_template?: string | null;
  eos_token?: string | null;
}

/** Milliseconds that a server has to describe itself while a stream waits. */
const INFO_MS = 5_000;

/** The original has had two names for this. */
interface WireServer {
  stream_output?: boolean;
  incremental_streaming_output?: boolean;
}

/** What the events of a stream have told so far. */
class Told {
  #text = '';
  #sent = 0;
  #tokens: WireLogprob[] = [];
  #top: (WireLogprob[] | null)[] = [];

  /** The text that is new and certain. */
  piece(text: string, meta: WireResult['meta_info'], isNewAlone: boolean): string {
    const { output_token_logprobs: tokens = [], output_top_logprobs: top = [] } = meta;
    // Some servers tell the log-probabilities of all tokens beside the new text alone.
    const areAll = !isNewAlone || tokens.length >= meta.completion_tokens;
    this.#tokens = areAll ? tokens : [...this.#tokens, ...tokens];
    this.#top = areAll ? top : [...this.#top, ...top];
    this.#text = isNewAlone ? this.#text + text : text;
    const known = meta.finish_reason ? this.#text : withoutPartialCharacter(this.#text);
    const piece = known.slice(this.#sent);
    this.#sent = Math.max(this.#sent, known.length);
    return piece;
  }

  /** `meta` with the log-probabilities of all tokens. */
  with(meta: WireResult['meta_info']): WireResult['meta_info'] {
    const { output_token_logprobs: asked } = meta;
    return asked ? { ...meta, output_token_logprobs: this.#tokens, output_top_logprobs: this.#top } : meta;
  }
}

class RemoteModel implements TextModel {
  readonly kind = 'runtime-endpoint';
  readonly #server: HttpServer;
  readonly #chatTemplate: string | undefined;
  /** Whether events tell the new text alone, not all of it so far; asked once. */
  #tellsNewText: Promise<boolean> | undefined;
  readonly #standing: { priority: number | undefined; extra_key: string | undefined };
  #model: Promise<ChatTemplate> | undefined;
  /** Routers refuse lists; found out once. */
  #takesLists = true;

  constructor(server: HttpServer, chatTemplate: string | undefined, { priority, cacheSalt }: RequestStanding) {
    this.#server = server;
    this.#chatTemplate = chatTemplate;
    // The original knows a salt by this name on `/generate`.
    this.#standing = { priority, extra_key: cacheSalt };
  }

  /** Asks the server once; a failure is not remembered. */
  template(): Promise<ChatTemplate> {
    this.#model ??= this.#askTemplate().catch((error) => {
      this.#model = undefined;
      throw error;
    });
    return this.#model;
  }

  async *stream(prompt: RenderedPrompt, options: GenerateOptions): AsyncGenerator<Delta, void> {
    const { returnLogprob, topLogprobsNum, signal } = options;
    const logprobs = { return_logprob: true, return_text_in_logprobs: true, top_logprobs_num: topLogprobsNum };
    const wanted = returnLogprob ? logprobs : {};
    const body = {
      ...(await wirePrompt(prompt)),
      ...this.#standing,
      sampling_params: wireParams(samplingParams(options)),
      ...wanted,
    };
    if (options.whole) {
      const { text, meta_info } = (await this.#server.post('/generate', body, signal)) as WireResult;
      return yield { text, meta: toGenMeta(meta_info) };
    }
    const told = new Told();
    for await (const event of this.#server.events('/generate', { ...body, stream: true }, signal)) {
      const { text, meta_info } = event as WireResult;
      this.#tellsNewText ??= this.#askServer();
      const piece = told.piece(text, meta_info, await this.#tellsNewText);
      if (piece) yield { text: piece };
      if (meta_info.finish_reason) yield { text: '', meta: toGenMeta(told.with(meta_info)) };
    }
  }

  /** Servers that do not say (routers, old ones) tell all text so far. */
  async #askServer(): Promise<boolean> {
    const asked = this.#server.get('/get_server_info', AbortSignal.timeout(INFO_MS));
    const info = (await asked.catch(() => ({}))) as WireServer;
    return info.stream_output ?? info.incremental_streaming_output ?? false;
  }

  async prefill(prompt: RenderedPrompt, signal?: AbortSignal): Promise<GenMeta> {
    const body = { ...(await wirePrompt(prompt)), ...this.#standing, sampling_params: COMPUTE_ONLY };
    return toGenMeta(((await this.#server.post('/generate', body, signal)) as WireResult).meta_info);
  }

  async score(
    texts: readonly string[],
    images: readonly ImageInput[],
    start: number,
    signal?: AbortSignal,
  ): Promise<TokenLogprob[][]> {
    const pictures = await Promise.all(images.map(imageUrl));
    const wanted = {
      sampling_params: COMPUTE_ONLY,
      return_logprob: true,
      return_text_in_logprobs: true,
      logprob_start_len: start,
    };
    const lists = pictures.length > 0 ? { text: texts, image_data: texts.map(() => pictures) } : { text: texts };
    return this.#each(lists, wanted, signal);
  }

  scoreIds(lists: readonly (readonly number[])[], signal?: AbortSignal): Promise<TokenLogprob[][]> {
    return this.#each(
      { input_ids: lists },
      { sampling_params: COMPUTE_ONLY, return_logprob: true, logprob_start_len: 0 },
      signal,
    );
  }

  async flushCache(): Promise<void> {
    await this.#server.command('/flush_cache');
  }

  async #askTemplate(): Promise<ChatTemplate> {
    const { model_path, chat_template, eos_token } = (await this.#server.get('/get_model_info')) as WireModel;
    const chatTemplate = this.#chatTemplate ?? chat_template ?? null;
    return chatTemplateOf({ modelPath: model_path, chatTemplate, bosToken: '', eosToken: eos_token ?? null });
  }

  /** One request for all items of `lists`; one for each where the server refuses that. */
  async #each(lists: Lists, rest: object, signal?: AbortSignal): Promise<TokenLogprob[][]> {
    const ask = (item: object) => this.#server.post('/generate', { ...item, ...this.#standing, ...rest }, signal);
    try {
      if (this.#takesLists) return ((await ask(lists)) as WireResult[]).map(inputTokens);
    } catch (error) {
      if (!isRefusedForm(error)) throw error;
    }
    const count = Object.values(lists)[0]!.length;
    const items = Array.from({ length: count }, (_, i) =>
      Object.fromEntries(Object.entries(lists).map(([key, list]) => [key, list[i]])),
    );
    const results = await Promise.all(items.map(async (item) => inputTokens((await ask(item)) as WireResult)));
    // Only now it is known that the list was refused, and not what is in it.
    this.#takesLists = false;
    return results;
  }
}

/** Fields of `/generate` with an entry per item. */
type Lists =
  { text: readonly string[]; image_data?: readonly string[][] } | { input_ids: readonly (readonly number[])[] };

/** Fields of `/generate` that compute a prompt and generate nothing. */
const COMPUTE_ONLY = { max_new_tokens: 0, temperature: 0 };

async function wirePrompt({ text, images }: RenderedPrompt): Promise<object> {
  return images.length > 0 ? { text, image_data: await Promise.all(images.map(imageUrl)) } : { text };
}

/** No limit is Infinity, which JSON has as null; servers read it so. */
function wireParams({ seed, ...params }: SamplingParams): object {
  return { ...wireNames(params), ...(seed !== undefined && { sampling_seed: seed }) };
}

/** A character whose last bytes are still to come shows as U+FFFD. */
function withoutPartialCharacter(text: string): string {
  return text.replace(/\uFFFD+$/, '');
}

function inputTokens({ meta_info }: WireResult): TokenLogprob[] {
  if (!meta_info.input_token_logprobs)
    throw new SglangError('unsupported', 'the server gave no input_token_logprobs; select needs them');
  return tokensOf(meta_info.input_token_logprobs);
}

function tokensOf(wire: readonly WireLogprob[]): TokenLogprob[] {
  return wire.map(([logprob, tokenId]) => ({ logprob, tokenId }));
}

function namedTokensOf(wire: readonly WireLogprob[]): OutputLogprob[] {
  return wire.map(([logprob, tokenId, text]) => ({ logprob, tokenId, ...(text != null && { text }) }));
}

function toGenMeta({
  finish_reason,
  prompt_tokens,
  completion_tokens,
  cached_tokens = 0,
  output_token_logprobs,
  output_top_logprobs = [],
}: WireResult['meta_info']): GenMeta {
  const finishReason =
    finish_reason?.type === 'stop' ? { type: 'stop' as const, matched: finish_reason.matched ?? null } : finish_reason;
  const outputLogprobs = output_token_logprobs && {
    tokens: namedTokensOf(output_token_logprobs),
    top: output_top_logprobs.map((list) => namedTokensOf(list ?? [])),
  };
  const counts = { promptTokens: prompt_tokens, completionTokens: completion_tokens, cachedTokens: cached_tokens };
  return genMeta({
    ...counts,
    finishReason: (finishReason as FinishReason | null) ?? { type: 'length', length: completion_tokens },
    outputLogprobs,
  });
}
