/** Streams of events: their order, their pace, their end. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import test from 'ava';
import type { Call } from '../../src/server/calls.ts';
import { merge, streamEvents } from '../../src/server/event-stream.ts';
import { countedPieces } from '../heap.ts';
import { until } from './harness.ts';

test('nothing is read ahead of a client that does not read', async (t) => {
  const total = 4000;
  let pulled = 0;
  let ended = false;
  async function* events() {
    try {
      for (; pulled < total; pulled++) yield { filler: 'x'.repeat(32_000) };
    } finally {
      ended = true;
    }
  }
  const server = createServer((_req, res) => {
    const control = new AbortController();
    res.on('close', () => control.abort());
    void streamEvents({ res, signal: control.signal, options: {} } as unknown as Call, events());
  }).listen(0, '127.0.0.1');
  t.teardown(() => server.close());
  await until(() => server.listening);
  const leave = new AbortController();
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const unread = await fetch(url, { signal: leave.signal }); // Held to the end: a collected one would hang up.
  let before = -1;
  while (pulled !== before) {
    before = pulled;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  t.true(pulled > 0 && pulled < total / 2, `${pulled} of ${total} events were made`);
  t.false(unread.bodyUsed);
  leave.abort();
  await until(() => ended);
  t.true(pulled < total, 'nor for one that has gone');
});

test('merged sources keep their own order, and a failing one ends the whole', async (t) => {
  async function* source(values: number[], failure?: Error) {
    for (const value of values) {
      await new Promise((resolve) => setTimeout(resolve, value));
      yield value;
    }
    if (failure) throw failure;
  }
  const seen: [number, number][] = [];
  for await (const piece of merge([source([1, 9, 2]), source([4, 3]), source([])])) seen.push(piece);
  const of = (place: number) => seen.filter(([source]) => source === place).map(([, value]) => value);
  t.deepEqual(
    [of(0), of(1)],
    [
      [1, 9, 2],
      [4, 3],
    ],
  );
  const read = async () => {
    for await (const [, value] of merge([source([1], new Error('broken')), source([1, 1, 50])])) t.is(value, 1);
  };
  await t.throwsAsync(read, { message: 'broken' });
});

test('a source that is silent costs nothing for the pieces of others', async (t) => {
  const { pieces, grown } = countedPieces(100_000);
  let speak: (piece: IteratorResult<number>) => void = () => {};
  const silent = new Promise<IteratorResult<number>>((resolve) => (speak = resolve));
  const late = { [Symbol.asyncIterator]: () => ({ next: () => silent }) };
  let seen = 0;
  for await (const [source] of merge([pieces, late])) {
    if (source === 1) break;
    if (++seen === 100_000) speak({ done: false, value: 0 });
  }
  t.true(grown.bytes < 2e6, `${grown.bytes} bytes more than after the first pieces`);
});
