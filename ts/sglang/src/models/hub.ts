/** The Hugging Face hub: what files a model has at a revision, and their content. `HF_ENDPOINT` and `HF_TOKEN` as everywhere. */
import type { Content, Fetch } from './download.ts';

export interface HubId {
  /** `org/name`. */
  readonly repo: string;
  readonly revision: string;
  /** One file of the model, where only that is wanted. */
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

const connectMs = 5_000;

/** Reads `org/name`, `org/name@revision`, `org/name:file` and `org/name@revision:file`; null for anything else. */
export function parseHubId(text: string): HubId | null {
  const match = /^([\w-][\w.-]*\/[\w-][\w.-]*)(?:@([^:]+))?(?::(.+))?$/.exec(text);
  if (!match) return null;
  const [, repo, revision = 'main', file] = match;
  return { repo: repo!, revision, file };
}

interface Sibling {
  rfilename: string;
  size?: number;
  blobId?: string;
  lfs?: { sha256: string; size: number };
}

export class Hub {
  private readonly endpoint: string;
  private readonly headers: Record<string, string>;

  constructor(env: NodeJS.ProcessEnv) {
    this.endpoint = (env['HF_ENDPOINT'] || 'https://huggingface.co').replace(/\/+$/, '');
    this.headers = env['HF_TOKEN'] ? { Authorization: `Bearer ${env['HF_TOKEN']}` } : {};
  }

  async list({ repo, revision }: HubId, signal?: AbortSignal): Promise<HubModel> {
    const url = `${this.endpoint}/api/models/${repo}/revision/${encodeURIComponent(revision)}?blobs=true`;
    const answer = (await (await this.get(url, {}, signal)).json()) as { sha: string; siblings: Sibling[] };
    const isPlain = ({ rfilename }: Sibling) => !rfilename.split('/').some((step) => step === '..' || step === '');
    return { commit: answer.sha, files: answer.siblings.filter(isPlain).flatMap(toFile) };
  }

  fetch(repo: string, revision: string, path: string): Fetch {
    const name = path.split('/').map(encodeURIComponent).join('/');
    const url = `${this.endpoint}/${repo}/resolve/${encodeURIComponent(revision)}/${name}`;
    return async (from, signal) => {
      const response = await this.get(url, from > 0 ? { Range: `bytes=${from}-` } : {}, signal);
      const chunks = (response.body ?? new ReadableStream<Uint8Array>()) as AsyncIterable<Uint8Array>;
      return { start: response.status === 206 ? from : 0, chunks };
    };
  }

  /** Throws where no good answer begins within `connectMs`; the body may take its time. */
  private async get(url: string, headers: Record<string, string>, signal?: AbortSignal): Promise<Response> {
    const control = new AbortController();
    const timer = setTimeout(() => control.abort(new Error(`no answer within ${connectMs / 1000} s`)), connectMs);
    try {
      const either = AbortSignal.any([control.signal, ...(signal ? [signal] : [])]);
      const response = await fetch(url, { headers: { ...this.headers, ...headers }, signal: either });
      if (response.ok) return response;
      await response.body?.cancel();
      throw new Error(`HTTP ${response.status}${advice(response.status)}`);
    } catch (error) {
      throw new Error(`${url}: ${reason(error)}`, { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }
}

function toFile({ rfilename, size, blobId, lfs }: Sibling): HubFile[] {
  const file = { path: rfilename, source: rfilename };
  if (lfs) return [{ ...file, bytes: lfs.size, digest: { algorithm: 'sha256', hex: lfs.sha256 } }];
  if (size === undefined || blobId === undefined) return [];
  return [{ ...file, bytes: size, digest: { algorithm: 'git-sha1', hex: blobId } }];
}

function advice(status: number): string {
  if (status === 401 || status === 403) return ' (no such model, or one that needs an access token in HF_TOKEN)';
  return status === 404 ? ' (no such model, revision or file)' : '';
}

function reason(error: unknown): string {
  const { message, cause } = error as Error;
  return cause instanceof Error ? cause.message || String((cause as NodeJS.ErrnoException).code) : message;
}
