/** What is repeated, when, and what an error says. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import test from 'ava';
import { HttpServer } from '../../src/backends/http.ts';
import { SglangError } from '../../src/engine/errors.ts';
import { scriptedServer, type Answer } from './scripted-server.ts';

const busy = (status: number, headers?: Record<string, string>): Answer => ({
  status,
  headers,
  json: { error: { message: 'busy' } },
});
const soon = { retryDelay: 1 };

for (const status of [429, 500, 502, 503]) {
  test(`a ${status} is repeated until it is answered`, async (t) => {
    const { url, asked } = await scriptedServer(t, (_, nth) => (nth < 2 ? busy(status) : { json: { n: nth } }));
    t.deepEqual(await new HttpServer(`${url}/`, soon).post('/x', { a: 1 }), { n: 2 });
    t.deepEqual(
      asked.map(({ method, path, body }) => [method, path, body]),
      Array(3).fill(['POST', '/x', { a: 1 }]),
    );
  });
}

const failures: readonly (readonly [answer: Answer, code: string, message: RegExp, times: number])[] = [
  [busy(429), 'overloaded', /\/x: 429: busy$/, 3],
  [busy(500), 'device_error', /500: busy/, 3],
  [{ status: 400, json: { error: { message: 'no', param: 'text' } } }, 'bad_request', /400: no/, 1],
  [
    { status: 400, json: { error: { message: 'long', code: 'context_length_exceeded' } } },
    'context_length_exceeded',
    /long/,
    1,
  ],
  [{ status: 404, json: { error: 'where?' } }, 'model_not_found', /404: where\?/, 1],
  [{ status: 422, json: { message: 'older' } }, 'bad_request', /older/, 1],
  [{ status: 401, json: 'plain' }, 'bad_request', /401: no message/, 1],
];
for (const [answer, code, message, times] of failures) {
  test(`${answer.status} ${JSON.stringify(answer.json)} is ${code} after ${times}`, async (t) => {
    const { url, asked } = await scriptedServer(t, () => answer);
    const error = await t.throwsAsync(new HttpServer(url, soon).post('/x', {}), { instanceOf: SglangError, message });
    t.is(error.code, code as never);
    t.is(asked.length, times);
  });
}

test('Retry-After is heeded: in seconds, and as a date that is over', async (t) => {
  const after = ['0', new Date(0).toUTCString()];
  const { url, asked } = await scriptedServer(t, (_, nth) =>
    nth < 2 ? busy(503, { 'retry-after': after[nth]! }) : { json: {} },
  );
  await new HttpServer(url, { retryDelay: 600_000 }).post('/x', {});
  t.is(asked.length, 3);
});

test('an abort ends the wait for a repetition with its reason', async (t) => {
  const { url } = await scriptedServer(t, () => busy(503, { 'retry-after': '60' }));
  const controller = new AbortController();
  const reason = new Error('enough');
  setTimeout(() => controller.abort(reason), 20);
  t.is(await t.throwsAsync(new HttpServer(url).post('/x', {}, controller.signal)), reason);
});

test('no server: the error says where and why', async (t) => {
  const server = new HttpServer('http://127.0.0.1:9', { maxRetries: 1, ...soon });
  const error = await t.throwsAsync(server.get('/x'), { instanceOf: SglangError });
  t.regex(error.message, /^http:\/\/127\.0\.0\.1:9\/x cannot be reached: ./);
});

test('keys and headers go along; what is no JSON is said', async (t) => {
  const { url, asked } = await scriptedServer(t, () => ({ headers: { 'content-type': 'text/html' } }));
  const server = new HttpServer(url, { apiKey: 'k', headers: { 'x-a': 'b' } });
  await t.throwsAsync(server.get('/x'), { message: /did not answer with JSON/ });
  t.like(asked[0]!.headers, { authorization: 'Bearer k', 'x-a': 'b' });
});

test('what breaks off within an answer is told with its address, an abort as its reason', async (t) => {
  const server = createServer((request, response) => {
    response.write(request.url === '/garbage' ? 'data: {"n":\n\n' : 'data: {"n":1}\n\n', () => {
      if (request.url === '/cut') response.destroy();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => server.closeAllConnections());
  t.teardown(() => server.close());
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const http = new HttpServer(url, { maxRetries: 0 });
  const read = async (path: string, signal?: AbortSignal) => {
    for await (const _ of http.events(path, {}, signal));
  };
  await t.throwsAsync(read('/cut'), { message: new RegExp(`^${url}/cut: the answer broke off: `) });
  await t.throwsAsync(http.post('/cut', {}), { message: new RegExp(`^${url}/cut: the answer broke off: `) });
  await t.throwsAsync(read('/garbage'), { message: `${url}/garbage did not answer with JSON: {"n":` });
  for (const hangs of [read, (path: string, signal: AbortSignal) => http.post(path, {}, signal)]) {
    const stop = new AbortController();
    const reading = hangs('/hangs', stop.signal);
    stop.abort(new Error('enough'));
    await t.throwsAsync(reading, { message: 'enough' });
  }
});

test('an error within a stream is thrown after the events before it', async (t) => {
  const { url } = await scriptedServer(t, () => ({ events: [{ a: 1 }, { error: { message: 'broke' } }] }));
  const seen: unknown[] = [];
  await t.throwsAsync(
    async () => {
      for await (const event of new HttpServer(url).events('/x', {})) seen.push(event);
    },
    { message: /broke/ },
  );
  t.deepEqual(seen, [{ a: 1 }]);
});

test('no more requests are open than allowed, streams included, and all are served in order', async (t) => {
  let open = 0;
  let most = 0;
  const { url, asked } = await scriptedServer(t, ({ closed }) => {
    most = Math.max(most, ++open);
    void closed.then(() => open--);
    return { events: [{ a: 1 }, '[DONE]'] };
  });
  const server = new HttpServer(url, { concurrency: 2 });
  const ask = async (n: number) => {
    for await (const _ of server.events('/x', { n }));
  };
  await Promise.all(Array.from({ length: 9 }, (_, n) => ask(n)));
  t.true(most <= 2, `${most} were open at once`);
  t.deepEqual(
    asked.map(({ body }) => body.n),
    [0, 1, 2, 3, 4, 5, 6, 7, 8],
  );
});
