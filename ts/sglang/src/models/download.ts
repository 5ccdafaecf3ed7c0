/**
 * A file of known content, fetched. What arrives is hashed on its way to disk and becomes the file only if length and
 * hash are right; a broken connection is continued where it broke, in this process or a later one.
 */
import { createHash } from 'node:crypto';
import type { Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, rm, stat, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { claimPartial } from './cache.ts';

/** What is going on while a model is fetched. */
export interface PullProgress {
  phase: 'download';
  doneBytes: number;
  totalBytes: number;
}

export interface PullOptions {
  onProgress?: (progress: PullProgress) => void;
  signal?: AbortSignal;
}

/** How the content is known: by its sha256, or by the hash git gives to small files. */
export interface Digest {
  readonly algorithm: 'sha256' | 'git-sha1';
  readonly hex: string;
}

export interface Content {
  /** Where it comes from, for errors. */
  readonly source: string;
  readonly bytes: number;
  readonly digest: Digest;
}

/** Bytes of the content from position `from` on; `start` is where they really begin (0 where the source cannot skip). */
export type Fetch = (
  from: number,
  signal?: AbortSignal,
) => Promise<{ start: number; chunks: AsyncIterable<Uint8Array> }>;

/** Attempts in a row that bring nothing new before a broken download is given up. */
const emptyAttempts = 3;
const retryMs = 250;

/** Fetches the content to `target`. Throws what the last attempt threw; what arrived by then is kept for the next call. */
export async function download(
  content: Content,
  fetch: Fetch,
  target: string,
  options: PullOptions = {},
): Promise<void> {
  if (await hasSize(target, content.bytes)) return;
  const partial = await claimPartial(target);
  const received = new Received(content, partial.path, options.onProgress);
  try {
    await received.readKept();
    await fill(received, content, fetch, options.signal);
  } catch (error) {
    await partial.keep();
    throw error;
  }
  const wrong = received.problem();
  if (wrong === undefined) return partial.finish();
  await rm(partial.path, { force: true });
  if (received.keptBytes === 0) throw new Error(wrong);
  return download(content, fetch, target, options); // What was kept may have been rubbish.
}

export async function hasSize(path: string, bytes: number): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() === true && found.size === bytes;
}

/** A source that gives nothing at first is given up at once: there may be another one. */
async function fill(received: Received, { bytes }: Content, fetch: Fetch, signal?: AbortSignal): Promise<void> {
  for (let empty = 0; received.bytes < bytes;) {
    const before = received.bytes;
    try {
      const { start, chunks } = await fetch(before, signal);
      await received.append(start, chunks);
      if (received.bytes < bytes) throw new Error(`the connection ended after ${received.bytes} of ${bytes} bytes`);
    } catch (error) {
      empty = received.bytes > before ? 0 : empty + 1;
      if (signal?.aborted || received.bytes === received.keptBytes || empty >= emptyAttempts) throw error;
      await sleep(retryMs * empty);
    }
  }
}

/** The bytes on disk so far, and their hash. */
class Received {
  bytes = 0;
  /** Of these, what an earlier attempt left. */
  keptBytes = 0;
  private hash: Hash;

  constructor(
    private readonly content: Content,
    private readonly path: string,
    private readonly onProgress: PullOptions['onProgress'],
  ) {
    this.hash = freshHash(content);
  }

  async readKept(): Promise<void> {
    await writeFile(this.path, '', { flag: 'a' });
    for await (const chunk of createReadStream(this.path)) this.count(chunk as Buffer);
    this.keptBytes = this.bytes;
  }

  async append(start: number, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    if (start !== this.bytes) {
      this.bytes = 0;
      this.hash = freshHash(this.content);
    }
    const file = await open(this.path, start === 0 ? 'w' : 'a');
    try {
      for await (const chunk of chunks) {
        await file.writeFile(chunk);
        this.count(chunk);
      }
    } finally {
      await file.close();
    }
  }

  /** What is wrong with the complete content, if anything. */
  problem(): string | undefined {
    const { source, bytes, digest } = this.content;
    if (this.bytes !== bytes) return `${source}: expected ${bytes} bytes, got ${this.bytes}`;
    const got = this.hash.digest('hex');
    return got === digest.hex ? undefined : `${source}: expected ${digest.algorithm} ${digest.hex}, got ${got}`;
  }

  private count(chunk: Uint8Array): void {
    this.hash.update(chunk);
    this.bytes += chunk.length;
    this.onProgress?.({ phase: 'download', doneBytes: this.bytes, totalBytes: this.content.bytes });
  }
}

function freshHash({ digest, bytes }: Content): Hash {
  if (digest.algorithm === 'sha256') return createHash('sha256');
  return createHash('sha1').update(`blob ${bytes}\0`);
}
