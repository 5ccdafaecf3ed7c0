/** Limits of requests: how many are open, how many start within a window, and what an abort leaves behind. */
import test from 'ava';
import { RateLimit } from '../../src/backends/rate-limit.ts';

test('within any window no more start than allowed, in their order', async (t) => {
  const windowMs = 100;
  const limit = new RateLimit({ requestsPerMinute: 3 }, windowMs);
  const starts: { n: number; at: number }[] = [];
  const start = async (n: number) => {
    await limit.start();
    starts.push({ n, at: performance.now() });
  };
  await Promise.all(Array.from({ length: 10 }, (_, n) => start(n)));
  t.deepEqual(
    starts.map(({ n }) => n),
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
  );
  const after = starts.slice(3).map(({ at }, i) => at - starts[i]!.at);
  // Half of it is left to the time between a start and its being seen here.
  t.true(Math.min(...after) > windowMs / 2, `the third after one started ${Math.min(...after)} ms later`);
});

test('who is aborted in the queue leaves it, and its place goes to the next', async (t) => {
  const limit = new RateLimit({ concurrency: 1 });
  const controller = new AbortController();
  const leave = await limit.enter();
  const aborted = limit.enter(controller.signal);
  const next = limit.enter();
  const reason = new Error('enough');
  controller.abort(reason);
  t.is(await t.throwsAsync(aborted), reason);
  await t.throwsAsync(limit.enter(controller.signal), { message: 'enough' });
  leave();
  (await next)();
  (await limit.enter())();
  t.pass();
});

test('an abort ends the wait for a start', async (t) => {
  const limit = new RateLimit({ requestsPerMinute: 1 });
  await limit.start();
  await t.throwsAsync(limit.start(AbortSignal.abort(new Error('enough'))), { message: 'enough' });
});

for (const limits of [{ concurrency: 0 }, { requestsPerMinute: 1.5 }, { concurrency: Number.NaN }]) {
  test(`${JSON.stringify(limits)} is refused`, (t) => {
    t.throws(() => new RateLimit(limits), { message: /expected a positive integer/ });
  });
}
