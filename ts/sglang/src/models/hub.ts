/**
 * The Hugging Face hub: what files a model has at a revision, and their content. `HF_ENDPOINT`, the token and the time
 * limit are found where Python's client finds them. Law: the token goes to the endpoint and to nobody it redirects to.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { abortablePieces, anySignal } from '../lang/abort.ts';
import { hubHome } from './cache.ts';
import type { Content, Fetch } from './download.ts';

export interface HubId {
  /** `org/name`. */
  readonly repo: string;
  /** A branch, a tag or a commit. */
  readonly revision: string;
  /** One file of the model or the quantization of its GGUF file, where only that is wanted. */
  readonly file?: string;
}

export interface HubFile extends Content {
  readonly path: string;
}

export interface HubModel {
  /** The commit that the revision stands for now. */
  readonly commit: string;
  readonly files: readonly HubFile[];
}

/** Seconds in which something must come, unless `HF_HUB_DOWNLOAD_TIMEOUT` says otherwise. */
const patienceSeconds = 10;
/** How often a request that came too soon is made again, and the longest wait before that. */
const maxWaits = 5;
const longestWaitMs = 120_000;

/** Reads `org/name`, `org/name@revision`, `org/name:file` and `org/name@revision:file`; null for anything else. */
export function parseHubId(text: string): HubId | null {
  const match = /^([\w-][\w.-]*\/[\w-][\w.-]*)(?:@([^:]+))?(?::(.+))?$/.exec(text);
  if (!match) return null;
  const [, repo, revision = 'main', file] = match;
  return { repo: repo!, revision, file };
}

/** No step of a path leads upwards or away. */
export function isInside(path: string): boolean {
  return path.split(/[/\\]/).every((step) => step !== '' && step !== '.' && step !== '..') && !/^\w:/.test(path);
}

interface Sibling {
  rfilename: string;
  size?: number;
  blobId?: string;
  lfs?: { sha256: string; size: number };
}

export class Hub {
  private readonly endpoint: string;
  private readonly token: string | undefined;
  private readonly patienceMs: number;

  constructor(env: NodeJS.ProcessEnv) {
    this.endpoint = (env['HF_ENDPOINT'] || 'https://huggingface.co').replace(/\/+$/, '');
    this.token = tokenOf(env);
    this.patienceMs = 1000 * (Number(env['HF_HUB_DOWNLOAD_TIMEOUT']) || patienceSeconds);
  }

  async list({ repo, revision }: HubId, signal?: AbortSignal): Promise<HubModel> {
    const url = `${this.endpoint}/api/models/${repo}/revision/${encodeURIComponent(revision)}?blobs=true`;
    const watch = new Watch(this.patienceMs, signal);
    try {
      const answer = (await (await this.get(url, {}, watch)).json()) as { sha: string; siblings: Sibling[] };
      if (!/^[0-9a-f]{40}$/.test(answer.sha)) throw new Error(`${url}: "${answer.sha}" is not a commit`);
      return {
        commit: answer.sha,
        files: answer.siblings.filter(({ rfilename }) => isInside(rfilename)).flatMap(toFile),
      };
    } finally {
      watch.pause();
    }
  }

  fetch(repo: string, revision: string, path: string): Fetch {
    const name = path.split('/').map(encodeURIComponent).join('/');
    const url = `${this.endpoint}/${repo}/resolve/${encodeURIComponent(revision)}/${name}`;
    return async (from, signal) => {
      const watch = new Watch(this.patienceMs, signal);
      const response = await this.get(url, from > 0 ? { Range: `bytes=${from}-` } : {}, watch);
      return { start: response.status === 206 ? from : 0, chunks: watch.over(response) };
    };
  }

  /** A good answer, or an error; whoever asks too often waits as long as the hub says. The watch goes on with the body. */
  private async get(url: string, headers: Record<string, string>, watch: Watch): Promise<Response> {
    const authorized = this.token === undefined ? headers : { ...headers, Authorization: `Bearer ${this.token}` };
    try {
      for (let waits = 0; ; waits++) {
        watch.feed();
        const response = await fetch(url, { headers: authorized, signal: watch.signal });
        if (response.ok) return response;
        await response.body?.cancel();
        watch.pause();
        const wait = waitAfter(response, waits);
        if (wait === undefined) throw new Error(`HTTP ${response.status}${this.advice(response)}`);
        await sleep(wait, undefined, { signal: watch.signal });
      }
    } catch (error) {
      watch.pause();
      throw new Error(`${url}: ${reason(error)}`, { cause: error });
    }
  }

  private advice({ status, headers }: Response): string {
    if (status === 404) return ' (no such model, revision or file)';
    if (status === 429) return ` (too many requests; try again ${comeBack(headers)})`;
    if (status !== 401 && status !== 403) return '';
    return this.token === undefined
      ? ' (no such model, or one that needs an access token: set HF_TOKEN, or log in with "hf auth login")'
      : " (no such model, or the access token was refused: check it, and accept the conditions on the model's page)";
  }
}

/** `HF_TOKEN`, its older name, or what the hub's command line keeps. */
function tokenOf(env: NodeJS.ProcessEnv): string | undefined {
  const given = env['HF_TOKEN'] || env['HUGGING_FACE_HUB_TOKEN'];
  return (given ?? loginOf(env)).trim() || undefined;
}

function loginOf(env: NodeJS.ProcessEnv): string {
  try {
    return readFileSync(env['HF_TOKEN_PATH'] || join(hubHome(env), 'token'), 'utf8');
  } catch {
    return '';
  }
}

/** Milliseconds until the request should be made again; undefined where it should not. */
function waitAfter({ status, headers }: Response, waits: number): number | undefined {
  const told = headers.get('retry-after');
  if ((status !== 429 && !(status === 503 && told !== null)) || waits >= maxWaits) return undefined;
  const wait = told === null ? 1000 * 2 ** waits : untilMs(told);
  return wait <= longestWaitMs ? wait : undefined;
}

/** `Retry-After`: seconds or a date. */
function untilMs(told: string): number {
  return /^\d+$/.test(told.trim()) ? 1000 * Number(told) : Math.max(Date.parse(told) - Date.now(), 0) || 0;
}

function comeBack(headers: Headers): string {
  const told = headers.get('retry-after');
  return told === null ? 'later' : `in ${Math.ceil(untilMs(told) / 1000)} s`;
}

/** Ends a request that brings nothing for so long. */
class Watch {
  private readonly control = new AbortController();
  private timer: NodeJS.Timeout | undefined;
  readonly signal: AbortSignal;

  constructor(
    private readonly patienceMs: number,
    signal?: AbortSignal,
  ) {
    this.signal = anySignal(this.control.signal, signal);
  }

  feed(): void {
    this.pause();
    const silence = new Error(`nothing came for ${this.patienceMs / 1000} s`);
    this.timer = setTimeout(() => this.control.abort(silence), this.patienceMs);
  }

  pause(): void {
    clearTimeout(this.timer);
  }

  /** The body; only waiting for the other side counts. A response that nothing holds would take its unread body with it. */
  async *over(response: Response): AsyncGenerator<Uint8Array> {
    try {
      for await (const chunk of abortablePieces((response.body ?? []) as AsyncIterable<Uint8Array>, this.signal)) {
        this.pause();
        yield chunk;
        this.feed();
      }
    } finally {
      this.pause();
    }
  }
}

function toFile({ rfilename, size, blobId, lfs }: Sibling): HubFile[] {
  const file = { path: rfilename, source: rfilename };
  if (lfs) return [{ ...file, bytes: lfs.size, digest: { algorithm: 'sha256', hex: lfs.sha256 } }];
  if (size === undefined || blobId === undefined) return [];
  return [{ ...file, bytes: size, digest: { algorithm: 'git-sha1', hex: blobId } }];
}

function reason(error: unknown): string {
  const { message, cause } = error as Error;
  return cause instanceof Error ? cause.message || String((cause as NodeJS.ErrnoException).code) : message;
}
