/**
 * Pictures of a prompt as the bytes of their files. Laws: what strangers name is a picture on the public web or travels
 * in the request: they make a server read neither its files nor its neighbours; nothing is larger or slower than the
 * limits. The bytes are decoded by the engine.
 */
import { lookup } from 'node:dns';
import { readFile } from 'node:fs/promises';
import { get as getHttp, type IncomingMessage } from 'node:http';
import { get as getHttps } from 'node:https';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import { fileURLToPath } from 'node:url';
import { anySignal } from '../lang/abort.ts';
import { SglangError } from './errors.ts';
import type { ImageInput } from './types.ts';

/** Largest file, in bytes. */
const MAX_BYTES = 20 * 2 ** 20;
/** Milliseconds until a server must have sent a picture. */
const MAX_TIME = 10_000;
const MAX_REDIRECTS = 3;

export interface ImageFileOptions {
  /** The name comes from the program itself: it may be a file's, and a URL may lead to this machine and its network. */
  trusted: boolean;
  signal?: AbortSignal;
}

/** The file of a picture. Throws `bad_request` that names the picture where it cannot be had. */
export async function imageFile(image: ImageInput, { trusted, signal }: ImageFileOptions): Promise<Uint8Array> {
  if (image instanceof Uint8Array) return image;
  const source = String(image);
  const shown = source.length <= 80 ? source : `${source.slice(0, 77)}...`;
  try {
    if (/^https?:/i.test(source)) return await download(new URL(source), trusted, signal);
    const encoded = /^data:[^,]*;base64,([^]*)$/i.exec(source)?.[1];
    if (encoded !== undefined) return decoded(encoded);
    if (!trusted) return decoded(source);
    return await readFile(/^file:/i.test(source) ? fileURLToPath(source) : source, { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw new SglangError('bad_request', `image ${shown}: ${(error as Error).message}`, 'image_data');
  }
}

function decoded(base64: string): Uint8Array {
  if (base64.length > MAX_BYTES * 1.4) throw tooLarge();
  // White space goes first: with it in the pattern, a long run of it is tried from each of its places on.
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(base64.replace(/\s+/g, ''))) {
    throw new Error('expected an http(s) URL, a data URL or base64');
  }
  return Buffer.from(base64, 'base64');
}

const tooLarge = () => new Error(`larger than ${MAX_BYTES} bytes`);

async function download(url: URL, trusted: boolean, signal: AbortSignal | undefined): Promise<Uint8Array> {
  const limit = AbortSignal.timeout(MAX_TIME);
  const either = anySignal(signal, limit);
  for (let i = 0; i <= MAX_REDIRECTS; i++) {
    if (!/^https?:$/.test(url.protocol)) throw new Error(`${url.protocol} is not supported`);
    const response = await request(url, trusted, either);
    const { statusCode = 0, headers } = response;
    if (statusCode === 200) return body(response);
    response.destroy();
    if (statusCode < 300 || statusCode > 399 || !headers.location) throw new Error(`the server says ${statusCode}`);
    url = new URL(headers.location, url);
  }
  throw new Error(`more than ${MAX_REDIRECTS} redirects`);
}

/** Addresses are checked as they are resolved, so that no second answer of a name server leads elsewhere. */
function request(url: URL, trusted: boolean, signal: AbortSignal): Promise<IncomingMessage> {
  const host = url.hostname.replace(/^\[|\]$/g, '');
  if (!trusted && isIP(host) && isLocal(host)) throw localAddress(host);
  const get = url.protocol === 'https:' ? getHttps : getHttp;
  return new Promise((resolve, reject) => {
    get(url, { signal, ...(!trusted && { lookup: publicLookup }) }, resolve).on('error', reject);
  });
}

const publicLookup: LookupFunction = (hostname, options, callback) =>
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    const local = addresses?.find(({ address }) => isLocal(address));
    if (error || local) return callback(error ?? localAddress(local!.address), '');
    if ((options as { all?: boolean }).all) return callback(null, addresses);
    callback(null, addresses[0]!.address, addresses[0]!.family);
  });

const localAddress = (address: string) => new Error(`${address} is an address of this machine or its network`);

/** Ranges that are not the public internet. Source: IANA's registries of special-purpose addresses. */
const localRanges = new BlockList();
for (const range of [
  '0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24',
  '192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3',
].flatMap((line) => line.split(' '))) {
  const [start, bits] = range.split('/');
  localRanges.addSubnet(start!, Number(bits), 'ipv4');
}
// Everything but global unicast; of that, what embeds or tunnels to IPv4 addresses and documentation.
for (const [start, bits] of [
  ['::', 3],
  ['4000::', 2],
  ['8000::', 1],
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
] as const) {
  localRanges.addSubnet(start, bits, 'ipv6');
}

function isLocal(address: string): boolean {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped) return isLocal(mapped);
  return localRanges.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
}

async function body(response: IncomingMessage): Promise<Uint8Array> {
  if (Number(response.headers['content-length'] ?? 0) > MAX_BYTES) throw tooLarge();
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BYTES) throw tooLarge();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** All pictures, in order. */
export function imageFiles(images: readonly ImageInput[], options: ImageFileOptions): Promise<Uint8Array[]> {
  return Promise.all(images.map((image) => imageFile(image, options)));
}
