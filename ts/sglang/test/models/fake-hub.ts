/** A hub on a free port: the listing and the files of a repository or some, with the faults a network has. */
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { ExecutionContext } from 'ava';

export const sha256 = (content: Buffer) => createHash('sha256').update(content).digest('hex');
export const commit = 'c'.repeat(40);

export interface FakeHub {
  endpoint: string;
  /** `GET /path range` of each request. */
  log: string[];
  /** The next answer with a file ends after so many bytes. */
  dropAfter: number | undefined;
  /** The next answer with a file says nothing more after so many bytes, and stays open. */
  stallAfter: number | undefined;
  /** Answers whole files to range requests. */
  ignoresRanges: boolean;
  /** Answers of the next requests in place of what they ask for. */
  refusals: { status: number; retryAfter?: string }[];
  /** The token without which there is no access. */
  demands: string | undefined;
  /** Where large files are redirected to. */
  cdn: string | undefined;
  /** Files are sent once so many were asked for at the same time. */
  together: number;
  files: Map<string, Buffer>;
  /** Files of other repositories. */
  others: Map<string, Map<string, Buffer>>;
  /** Content that is sent in place of what the listing promises. */
  replaced: Map<string, Buffer>;
  stop(): Promise<void>;
}

/** Files that end in `.gguf` or `.safetensors` are large files, known by their sha256; the others by their git hash. */
export async function fakeHub(t: ExecutionContext, repo: string, files: Record<string, Buffer>): Promise<FakeHub> {
  const hub: FakeHub = {
    endpoint: '',
    log: [],
    dropAfter: undefined,
    stallAfter: undefined,
    ignoresRanges: false,
    refusals: [],
    demands: undefined,
    cdn: undefined,
    together: 1,
    files: new Map(Object.entries(files)),
    others: new Map(),
    replaced: new Map(),
    stop: () => new Promise((resolve) => (server.close(() => resolve()), server.closeAllConnections())),
  };
  let held: (() => void)[] = [];
  const server = createServer((req, res) => {
    hub.log.push([req.method, req.url, req.headers.range, req.headers.authorization].filter(Boolean).join(' '));
    const url = new URL(req.url!, 'http://hub');
    const refusal = hub.refusals.shift();
    if (refusal) {
      const { status, retryAfter } = refusal;
      return void res.writeHead(status, retryAfter === undefined ? {} : { 'retry-after': retryAfter }).end();
    }
    const isKnown = hub.demands === undefined || req.headers.authorization === `Bearer ${hub.demands}`;
    if (!isKnown) return void res.writeHead(401).end();
    const [, isList, asked, , name] =
      /^(\/api\/models)?\/([^/]+\/[^/]+)\/(revision|resolve)\/[^/]+(?:\/(.+))?$/.exec(url.pathname) ?? [];
    const files = asked === repo ? hub.files : hub.others.get(asked ?? '');
    if (isList && files) return list(files, res);
    const path = decodeURIComponent(name ?? '');
    const content = files && (hub.replaced.get(path) ?? files.get(path));
    if (!content) return void res.writeHead(404).end();
    if (hub.cdn !== undefined && isLarge(path)) {
      return void res.writeHead(302, { location: hub.cdn + url.pathname }).end();
    }
    held.push(() => sendFile(hub, content, req, res));
    if (held.length < hub.together) return;
    held.forEach((send) => send());
    held = [];
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  hub.endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  t.teardown(() => hub.stop());
  return hub;
}

const isLarge = (path: string) => /\.(gguf|safetensors)$/.test(path);

function list(files: ReadonlyMap<string, Buffer>, res: ServerResponse): void {
  const siblings = [...files].map(([rfilename, content]) => {
    const size = content.length;
    const blobId = createHash('sha1').update(`blob ${size}\0`).update(content).digest('hex');
    return { rfilename, size, blobId, ...(isLarge(rfilename) && { lfs: { sha256: sha256(content), size } }) };
  });
  res.setHeader('content-type', 'application/json').end(JSON.stringify({ sha: commit, siblings }));
}

function sendFile(hub: FakeHub, content: Buffer, req: IncomingMessage, res: ServerResponse): void {
  const asked = /^bytes=(\d+)-$/.exec(req.headers.range ?? '')?.[1];
  const from = asked !== undefined && !hub.ignoresRanges ? Number(asked) : 0;
  const part = content.subarray(from);
  const range = from > 0 && { 'content-range': `bytes ${from}-${content.length - 1}/${content.length}` };
  res.writeHead(from > 0 ? 206 : 200, { 'content-length': part.length, ...range });
  const { dropAfter, stallAfter } = hub;
  hub.dropAfter = hub.stallAfter = undefined;
  if (stallAfter !== undefined) return void res.write(part.subarray(0, stallAfter));
  if (dropAfter === undefined) return void res.end(part);
  // Dropping at once would lose what was just written.
  res.write(part.subarray(0, dropAfter), () => setTimeout(() => res.destroy(), 50));
}
