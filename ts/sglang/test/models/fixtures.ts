/** What the tests of the model store share: folders that go away, a named model of known bytes, a wheel made by hand. */
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateRawSync } from 'node:zlib';
import type { ExecutionContext } from 'ava';
import type { NamedModel } from '../../src/models/table.ts';
import { sha256 } from './fake-hub.ts';

/** 300,000 bytes that no two places of are alike. */
export const content = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7919) >> 5));

export const model: NamedModel = {
  name: 'tiny',
  file: 'tiny.gguf',
  bytes: content.length,
  sha256: sha256(content),
  hub: { repo: 'org/tiny', revision: 'r1' },
  wheel: { requirement: 'tiny-package==1', member: 'tiny_package/tiny.gguf' },
};

export async function temporaryFolder(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'sglang-test-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** An environment with its own caches and without pip. */
export async function environment(
  t: ExecutionContext,
  endpoint: string,
): Promise<NodeJS.ProcessEnv & { SGLANG_CACHE: string }> {
  const folder = await temporaryFolder(t);
  return { SGLANG_CACHE: folder, HF_HOME: join(folder, 'hub-home'), HF_ENDPOINT: endpoint, PATH: '/nowhere' };
}

/** Puts a `pip3` on the PATH that "downloads" a wheel with these members. */
export async function fakePip(
  t: ExecutionContext,
  env: NodeJS.ProcessEnv,
  members: Record<string, Buffer>,
  deflate = true,
) {
  const folder = await temporaryFolder(t);
  await mkdir(join(folder, 'bin'));
  await writeFile(join(folder, 'tiny.whl'), zip(members, deflate));
  const script = `#!/bin/sh\nwhile [ "$1" != --dest ]; do shift; done\n/bin/cp ${join(folder, 'tiny.whl')} "$2"/tiny-1-py3-none-any.whl\n`;
  await writeFile(join(folder, 'bin/pip3'), script);
  await chmod(join(folder, 'bin/pip3'), 0o755);
  env['PATH'] = join(folder, 'bin');
}

/** A zip archive, after APPNOTE.TXT, with an archive comment to be stepped over. */
export function zip(members: Record<string, Buffer>, deflate: boolean): Buffer {
  const locals: Buffer[] = [];
  const central: Buffer[] = [];
  let offset = 0;
  for (const [name, bytes] of Object.entries(members)) {
    const stored = deflate ? deflateRawSync(bytes) : bytes;
    const sizes = [0, stored.length, bytes.length];
    const extra = Buffer.from('EXTRA');
    const local = Buffer.concat([
      header('PK\x03\x04', 30, 8, deflate, sizes, name, extra),
      Buffer.from(name),
      extra,
      stored,
    ]);
    const entry = header('PK\x01\x02', 46, 10, deflate, sizes, name, Buffer.alloc(0));
    entry.writeUInt32LE(offset, 42);
    locals.push(local);
    central.push(Buffer.concat([entry, Buffer.from(name)]));
    offset += local.length;
  }
  const directory = Buffer.concat(central);
  const comment = Buffer.from('a comment');
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 'latin1');
  end.writeUInt32LE(directory.length, 12);
  end.writeUInt32LE(offset, 16);
  end.writeUInt16LE(comment.length, 20);
  return Buffer.concat([...locals, directory, end, comment]);
}

/** The fields that both kinds of header have in one order, from the compression method on. */
function header(
  mark: string,
  length: number,
  at: number,
  deflate: boolean,
  sizes: number[],
  name: string,
  extra: Buffer,
): Buffer {
  const bytes = Buffer.alloc(length);
  bytes.write(mark, 'latin1');
  bytes.writeUInt16LE(deflate ? 8 : 0, at);
  sizes.forEach((size, i) => bytes.writeUInt32LE(size, at + 6 + 4 * i));
  bytes.writeUInt16LE(Buffer.byteLength(name), at + 18);
  bytes.writeUInt16LE(extra.length, at + 20);
  return bytes;
}
