/**
 * Requests to servers of models. Laws: a request is repeated only before anything of its answer was used, and only
 * where repeating may help (429, 5xx, no connection); every failure is an error that names the URL.
 */
import { SglangError, type SglangErrorCode } from '../engine/errors.ts';
import { shown } from '../lang/options.ts';
import { pause, RateLimit, type RateLimits } from './rate-limit.ts';
import { sseData } from './sse-parser.ts';

export interface HttpOptions extends RateLimits {
  /** Sent as a bearer token. */
  apiKey?: string;
  headers?: Readonly<Record<string, string>>;
  /** How often a request is repeated. Default 2. */
  maxRetries?: number;
  /** Milliseconds before the first repetition; doubled each time, unless the server says when. Default 500. */
  retryDelay?: number;
}

const MAX_DELAY_MS = 60_000;

/** A server at one address. */
export class HttpServer {
  readonly #address: string;
  readonly #headers: Record<string, string>;
  readonly #maxRetries: number;
  readonly #retryDelay: number;
  readonly #limit: RateLimit;

  constructor(address: string, { apiKey, headers, maxRetries = 2, retryDelay = 500, ...limits }: HttpOptions = {}) {
    if (!/^https?:\/\/./.test(address))
      throw new TypeError(`expected the URL of a server, such as http://localhost:30000, got ${shown(address)}`);
    this.#address = address.replace(/\/+$/, '');
    this.#headers = { ...(apiKey && { authorization: `Bearer ${apiKey}` }), ...headers };
    this.#maxRetries = maxRetries;
    this.#retryDelay = retryDelay;
    this.#limit = new RateLimit(limits);
  }

  async get(path: string, signal?: AbortSignal): Promise<unknown> {
    return this.#parsed(path, await this.#whole(path, { signal, headers: this.#headers }));
  }

  async post(path: string, body: unknown, signal?: AbortSignal): Promise<unknown> {
    return this.#parsed(path, await this.#whole(path, this.#posted(body, signal)));
  }

  /** A POST whose answer says nothing but that it was done. */
  async command(path: string): Promise<void> {
    await this.#whole(path, { method: 'POST', headers: this.#headers });
  }

  /** The data of the answer's server-sent events, parsed, up to `[DONE]`. */
  async *events(path: string, body: unknown, signal?: AbortSignal): AsyncGenerator<unknown, void> {
    const leave = await this.#limit.enter(signal);
    try {
      const response = await this.#send(path, this.#posted(body, signal));
      for await (const data of sseData(bytesOf(response, signal))) {
        if (data === '[DONE]') return;
        const event = this.#parsed(path, data) as { error?: unknown };
        if (event.error) throw errorOf(response.url, 500, event);
        yield event;
      }
    } finally {
      leave();
    }
  }

  async #whole(path: string, init: RequestInit): Promise<string> {
    const leave = await this.#limit.enter(init.signal ?? undefined);
    try {
      return await textOf(await this.#send(path, init), init.signal ?? undefined);
    } finally {
      leave();
    }
  }

  #parsed(path: string, text: string): unknown {
    try {
      return JSON.parse(text);
    } catch {
      throw new SglangError('bad_request', `${this.#address}${path} did not answer with JSON: ${text.slice(0, 200)}`);
    }
  }

  #posted(body: unknown, signal: AbortSignal | undefined): RequestInit {
    const headers = { 'content-type': 'application/json', ...this.#headers };
    return { method: 'POST', body: JSON.stringify(body), headers, signal };
  }

  async #send(path: string, init: RequestInit): Promise<Response> {
    const url = this.#address + path;
    for (let attempt = 0; ; attempt++) {
      await this.#limit.start(init.signal ?? undefined);
      const answer = await reach(url, init);
      if (answer instanceof Response && answer.ok) return answer;
      const status = answer instanceof Response ? answer.status : 503;
      const final = attempt === this.#maxRetries || (status < 500 && status !== 429);
      if (final) throw answer instanceof Response ? errorOf(url, status, await bodyOf(answer)) : answer;
      // Unread it would hold its connection.
      if (answer instanceof Response) await answer.body?.cancel().catch(() => {});
      await pause(this.#delay(answer, attempt), init.signal);
    }
  }

  /** As the server asks in Retry-After (seconds or a date); else doubling, with jitter against crowds. */
  #delay(answer: Response | Error, attempt: number): number {
    const asked = answer instanceof Response ? answer.headers.get('retry-after') : null;
    const seconds = Number(asked ?? NaN);
    const until = asked === null ? NaN : Number.isNaN(seconds) ? Date.parse(asked) - Date.now() : seconds * 1000;
    const own = this.#retryDelay * 2 ** attempt * (0.5 + Math.random() / 2);
    return Math.min(Math.max(Number.isNaN(until) ? own : until, 0), MAX_DELAY_MS);
  }
}

/** Whether a server may have refused the form of a request, not the prompt in it: another form is worth a try. */
export function isRefusedForm(error: unknown): boolean {
  return error instanceof SglangError && error.status === 400 && error.code !== 'context_length_exceeded';
}

/** The answer, or the error where there is no connection. An abort is thrown. */
async function reach(url: string, init: RequestInit): Promise<Response | SglangError> {
  try {
    return await fetch(url, init);
  } catch (error) {
    init.signal?.throwIfAborted();
    return new SglangError('engine_closed', `${url} cannot be reached: ${reasonOf(error)}`);
  }
}

/** `fetch` has the reason of a failure in its cause. */
function reasonOf(error: unknown): string {
  const { message, cause } = error as Error;
  return (cause as Error | undefined)?.message || message;
}

/** The answer as it comes; an abort is thrown as its reason. */
async function* bytesOf(response: Response, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array, void> {
  try {
    yield* response.body as AsyncIterable<Uint8Array>;
  } catch (error) {
    signal?.throwIfAborted();
    throw new SglangError('engine_closed', `${response.url}: the answer broke off: ${reasonOf(error)}`);
  }
}

async function textOf(response: Response, signal: AbortSignal | undefined): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const bytes of bytesOf(response, signal)) chunks.push(bytes);
  return new TextDecoder().decode(Buffer.concat(chunks));
}

async function bodyOf(response: Response): Promise<unknown> {
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    return { error: { message: text.slice(0, 500) } };
  }
}

type ErrorBody = {
  error?: string | { message?: string; code?: string | number; param?: string | null };
  message?: string;
};
const sameCode: ReadonlySet<unknown> = new Set<SglangErrorCode>([
  'context_length_exceeded',
  'model_not_found',
  'overloaded',
  'unsupported',
]);

/** The error of an answer `{ error: { message, code, param } }`, or of the forms older servers use. */
function errorOf(url: string, status: number, body: unknown): SglangError {
  const { error, message: outer } = (body ?? {}) as ErrorBody;
  const told = typeof error === 'object' ? error : { message: error ?? outer };
  const code = sameCode.has(told.code) ? (told.code as SglangErrorCode) : codeOf(status);
  return new SglangError(code, `${url}: ${status}: ${told.message || 'no message'}`, told.param ?? null);
}

function codeOf(status: number): SglangErrorCode {
  if (status === 404) return 'model_not_found';
  if (status === 429 || status === 503) return 'overloaded';
  return status < 500 ? 'bad_request' : 'device_error';
}
