/** Batches: order kept, no more at once than allowed, progress told, the first error stops the rest. */
import test from 'ava';
import fc from 'fast-check';
import { setProgressReporter } from '../../src/lang/batch.ts';
import { BatchError, FakeBackend, ProgramError, flushCache, fn, gen, setDefaultBackend } from '../../src/index.ts';

const square = fn((s, { n }: { n: number }) => s`n=${n};${gen('x')}`);
const numbered = (reply: (n: number) => Promise<string>) =>
  new FakeBackend({ replies: [[/n=/, (prompt) => reply(Number(/n=(\d+)/.exec(prompt)![1]))]] });
const list = (count: number) => Array.from({ length: count }, (_, n) => ({ n }));

test('results are in the order of the arguments, and no more run at once than allowed', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat(3), { maxLength: 20 }),
      fc.integer({ min: 1, max: 8 }),
      async (delays, concurrency) => {
        let open = 0;
        let most = 0;
        const backend = numbered(async (n) => {
          most = Math.max(most, ++open);
          await new Promise((resolve) => setTimeout(resolve, delays[n]));
          open--;
          return `${n * n}`;
        });
        const states = await square.runBatch(list(delays.length), { backend, concurrency });
        t.deepEqual(
          states.map(({ vars }) => vars.x),
          delays.map((_, n) => `${n * n}`),
        );
        t.is(most, Math.min(concurrency, delays.length));
      },
    ),
    { numRuns: 20 },
  );
});

test('progress counts up to the total, and the bar stops', async (t) => {
  const seen: string[] = [];
  setProgressReporter((total) => ({
    advance: (done) => seen.push(`bar ${done}/${total}`),
    stop: () => seen.push('stop'),
  }));
  const backend = numbered(async () => 'x');
  const onProgress = (done: number, total: number) => void seen.push(`${done}/${total}`);
  await square.runBatch(list(2), { backend, progress: true, onProgress });
  t.deepEqual(seen, ['bar 1/2', '1/2', 'bar 2/2', '2/2', 'stop']);
});

test('the first error names its item, stops the others and starts no more', async (t) => {
  const started: number[] = [];
  const backend = numbered((n) => {
    started.push(n);
    return n === 1 ? Promise.reject(new Error('boom')) : new Promise(() => {});
  });
  const error = await t.throwsAsync(square.runBatch(list(10), { backend, concurrency: 3 }), {
    instanceOf: ProgramError,
  });
  t.is(error.message, 'item 1: gen("x"): boom');
  t.deepEqual(started, [0, 1, 2]);
});

test('the error that stops a batch has the results of the rows that were done', async (t) => {
  const backend = numbered(async (n) => {
    if (n === 3) throw new Error('boom');
    return `${n * n}`;
  });
  const error = await t.throwsAsync(square.runBatch(list(6), { backend, concurrency: 1 }), { instanceOf: BatchError });
  t.is(error.message, 'item 3: gen("x"): boom');
  t.deepEqual(
    error.results.map((result) => result?.vars.x),
    ['0', '1', '4', undefined, undefined, undefined],
  );
});

test('settled reports each outcome', async (t) => {
  const backend = numbered(async (n) => {
    if (n === 1) throw new Error('boom');
    return 'fine';
  });
  const outcomes = await square.runBatch(list(3), { backend, settled: true });
  t.deepEqual(
    outcomes.map((outcome) => (outcome.status === 'fulfilled' ? outcome.value.vars.x : outcome.reason.message)),
    ['fine', 'item 1: gen("x"): boom', 'fine'],
  );
});

test('an empty batch is done, a senseless concurrency is refused', async (t) => {
  t.deepEqual(await square.runBatch([]), []);
  await t.throwsAsync(square.runBatch(list(1), { concurrency: 0 }), {
    message: /concurrency: expected a positive integer, got 0/,
  });
});

test.serial('the default backend serves runs that name none; flushCache is passed on', async (t) => {
  let flushed = 0;
  const backend = Object.assign(
    numbered(async () => 'x'),
    { flushCache: async () => void flushed++ },
  );
  setDefaultBackend(backend);
  t.is((await square.run({ n: 1 })).vars.x, 'x');
  await flushCache();
  await flushCache(new FakeBackend());
  t.is(flushed, 1);
});

test('a row that cannot start fails with its reason', async (t) => {
  const rows = ['text'] as unknown as { n: number }[];
  const error = await t.throwsAsync(square.runBatch(rows, { backend: numbered(async () => '') }), {
    instanceOf: BatchError,
  });
  t.deepEqual(error?.vars, {});
  t.true(error?.cause instanceof Error);
});
