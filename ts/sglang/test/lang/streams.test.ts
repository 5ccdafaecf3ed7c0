/** Streams: every event once, from the first, in order; their end is the run's. */
import { getEventListeners } from 'node:events';
import test from 'ava';
import { FakeBackend, fn, gen, select, type TextEvent } from '../../src/index.ts';
import { abortablePieces } from '../../src/lang/abort.ts';
import { countedPieces } from '../heap.ts';

const backend = () =>
  new FakeBackend({
    replies: [
      ['A:', 'alphabet'],
      ['B:', 'beta'],
      ['T:', 'two'],
    ],
    pieceLength: 3,
  });
const program = fn((s) => s`A:${gen('a')} B:${gen('b')} T:${select('t', ['one', 'two'])}`);
const all = async <T>(source: AsyncIterable<T>) => {
  const items: T[] = [];
  for await (const item of source) items.push(item);
  return items;
};

test('events name their variable, text events join to the prompt', async (t) => {
  const run = program.run({}, { backend: backend() });
  const events: TextEvent<string>[] = await all(run.events());
  t.deepEqual(
    events.map(({ name, delta }) => `${name}=${delta}`),
    ['null=A:', 'a=alp', 'a=hab', 'a=et', 'null= B:', 'b=bet', 'b=a', 'null= T:', 't=two'],
  );
  t.is((await all(run.textStream())).join(''), (await run).text());
});

test('the stream of a variable has its text only, also when read after the end', async (t) => {
  const run = program.run({}, { backend: backend() });
  t.deepEqual(await all(run.textStream('a')), ['alp', 'hab', 'et']);
  await run;
  t.deepEqual(await all(run.textStream('b')), ['bet', 'a']);
});

test('a stream gives text while the generation goes on', async (t) => {
  let release = () => {};
  const gate = new Promise<void>((resolve) => (release = resolve));
  const slow = new FakeBackend({
    replies: [
      ['B:', () => gate.then(() => 'late')],
      ['A:', 'early'],
    ],
  });
  const run = fn((s) => s`A:${gen('a')}B:${gen('b')}`).run({}, { backend: slow });
  const seen: string[] = [];
  for await (const delta of run.textStream()) {
    seen.push(delta);
    if (seen.join('') === 'A:earlyB:') release();
  }
  t.is(seen.join(''), 'A:earlyB:late');
});

test('leaving a stream early leaves the run alone', async (t) => {
  const run = program.run({}, { backend: backend() });
  for await (const _ of run.textStream()) break;
  t.is((await run).vars.b, 'beta');
});

test('a stream ends with the error of the run, after the text before it', async (t) => {
  const failing = new FakeBackend({
    replies: [
      ['A:', 'x'],
      ['B:', new Error('boom')],
    ],
  });
  const run = program.run({}, { backend: failing });
  const seen: string[] = [];
  const error = await t.throwsAsync(async () => {
    for await (const delta of run.textStream()) seen.push(delta);
  });
  t.is(error?.message, 'gen("b"): boom');
  t.is(seen.join(''), 'A:x B:');
});

test('a branch streams from its fork on, up to what was added', async (t) => {
  const seen = await new Promise<unknown[]>((resolve) => {
    void fn(async (s) => {
      const [branch] = s`head`.fork(1);
      resolve(await all(branch` A:${gen('a')}`.stream()));
      return s;
    }).run({}, { backend: backend() });
  });
  t.deepEqual(seen, [
    { name: null, delta: ' A:' },
    { name: 'a', delta: 'alp' },
    { name: 'a', delta: 'hab' },
    { name: 'a', delta: 'et' },
  ]);
});

test('a signal holds nothing of the pieces that went by', async (t) => {
  const { pieces, grown } = countedPieces(100_000);
  const { signal } = new AbortController();
  let seen = 0;
  for await (const _ of abortablePieces(pieces, signal)) seen++;
  t.is(seen, 100_000);
  t.true(grown.bytes < 2e6, `${grown.bytes} bytes more than after the first pieces`);
  t.deepEqual(getEventListeners(signal, 'abort'), []);
});
