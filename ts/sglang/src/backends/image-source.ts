/** Pictures of a prompt as URLs that can be sent. Law: a server reads no files of ours; what is not on the web travels along. */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { SglangError } from '../engine/errors.ts';
import type { ImageInput } from '../engine/types.ts';

/** First bytes of the formats, from their specifications. */
const signatures: readonly (readonly [type: string, start: string])[] = [
  ['image/png', '89504e47'],
  ['image/jpeg', 'ffd8ff'],
  ['image/gif', '47494638'],
  ['image/webp', '52494646'],
  ['image/bmp', '424d'],
];

/** `http:`, `https:` and `data:` URLs as they are, all else as a data URL. Throws `bad_request` where a file cannot be read. */
export async function imageUrl(image: ImageInput): Promise<string> {
  if (image instanceof Uint8Array) return dataUrl(image);
  const source = String(image);
  if (/^(https?|data):/i.test(source)) return source;
  try {
    return dataUrl(await readFile(/^file:/i.test(source) ? fileURLToPath(source) : source));
  } catch (error) {
    throw new SglangError('bad_request', `image ${source}: ${(error as Error).message}`, 'image');
  }
}

/** A data URL in base64 as `[url, type, data]`. */
export function base64Parts(url: string): readonly string[] | null {
  return /^data:([^;,]+);base64,(.*)$/s.exec(url);
}

function dataUrl(bytes: Uint8Array): string {
  const content = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const start = content.toString('hex', 0, 4);
  const type = signatures.find(([, signature]) => start.startsWith(signature))?.[0] ?? 'application/octet-stream';
  return `data:${type};base64,${content.toString('base64')}`;
}
