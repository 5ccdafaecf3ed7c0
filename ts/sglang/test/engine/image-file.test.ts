import { mkdtempSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pathToFileURL } from 'node:url';
import test from 'ava';
import { imageFile } from '../../src/engine/image-file.ts';

const bytes = Uint8Array.of(137, 80, 78, 71);
const base64 = Buffer.from(bytes).toString('base64');
const trusted = { trusted: true };
const stranger = { trusted: false };

/** Serves until `use` is done with its address. */
async function serving<T>(answer: RequestListener, use: (url: string) => Promise<T>): Promise<T> {
  const server = createServer(answer).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  try {
    return await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}/picture.png`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

test('bytes, files, data URLs and web addresses are the same picture', async (t) => {
  const file = path.join(mkdtempSync(path.join(tmpdir(), 'sglang-image-')), 'a.png');
  writeFileSync(file, bytes);
  const web = await serving(
    (_req, res) => res.end(bytes),
    (url) => imageFile(url, trusted),
  );
  const sources = [bytes, file, pathToFileURL(file), `data:image/png;base64,${base64}`];
  const all = [web, ...(await Promise.all(sources.map((source) => imageFile(source, trusted))))];
  for (const found of all) t.deepEqual(Uint8Array.from(found), bytes);
  t.deepEqual(Uint8Array.from(await imageFile(base64, stranger)), bytes);
});

test('redirects are followed, but not forever', async (t) => {
  const moved = await serving(
    (req, res) => (req.url === '/there' ? res.end(bytes) : res.writeHead(302, { location: '/there' }).end()),
    (url) => imageFile(url, trusted),
  );
  t.deepEqual(Uint8Array.from(moved), bytes);
  const circle = serving(
    (_req, res) => res.writeHead(302, { location: '/again' }).end(),
    (url) => imageFile(url, trusted),
  );
  await t.throwsAsync(circle, { message: /: more than 3 redirects$/ });
});

test('base64 may be broken into lines, and is not searched for a needle in much white space', async (t) => {
  const text = Buffer.from(bytes).toString('base64').replace(/.{4}/g, '$&\r\n ');
  t.deepEqual(Uint8Array.from(await imageFile(`data:image/png;base64,${text}\n`, stranger)), bytes);
  const wide = `A${' '.repeat(4_000_000)}!`;
  await t.throwsAsync(imageFile(wide, stranger), { message: /expected an http\(s\) URL, a data URL or base64$/ });
});

test('strangers reach neither files nor this machine nor its network', async (t) => {
  for (const source of ['/etc/resolv.conf', 'file:///etc/hostname', './a.png', 'ftp://example.org/a.png']) {
    await t.throwsAsync(imageFile(source, stranger), { message: /expected an http\(s\) URL, a data URL or base64$/ });
  }
  const hosts = ['127.0.0.1', '10.1.2.3', '169.254.169.254', '192.168.0.1', '[::1]', '[fe80::1]', '[::ffff:127.0.0.1]'];
  for (const host of [...hosts, 'localhost', '0.0.0.0', '2130706433']) {
    const error = await t.throwsAsync(imageFile(`http://${host}:9/a.png`, stranger));
    t.regex(error!.message, /is an address of this machine or its network$/, host);
  }
});

test('what is missing or too large is named', async (t) => {
  const missing = serving(
    (_req, res) => res.writeHead(404).end(),
    (url) => imageFile(url, trusted),
  );
  await t.throwsAsync(missing, { message: /^image http.*: the server says 404$/ });
  const large = serving(
    (_req, res) => res.writeHead(200, { 'content-length': 30 << 20 }).end(),
    (url) => imageFile(url, trusted),
  );
  await t.throwsAsync(large, { message: /: larger than 20971520 bytes$/ });
  const endless = serving(
    (_req, res) => void Readable.from(Array.from({ length: 24 }, () => Buffer.alloc(1 << 20))).pipe(res),
    (url) => imageFile(url, trusted),
  );
  await t.throwsAsync(endless, { message: /: larger than 20971520 bytes$/ });
  const error = await t.throwsAsync(imageFile('/nowhere/a.png', trusted));
  t.like(error, { code: 'bad_request', param: 'image_data' });
});

test('an abort ends the wait', async (t) => {
  const controller = new AbortController();
  const waiting = serving(
    () => controller.abort(new Error('enough')),
    (url) => imageFile(url, { trusted: true, signal: controller.signal }),
  );
  await t.throwsAsync(waiting, { message: 'enough' });
});
