/** What programs share is computed once: counted in tokens that the engine computed for prompts. */
import test from 'ava';
import { Engine } from '../../src/engine/engine.ts';
import { gen } from '../../src/lang/primitives.ts';
import { fn } from '../../src/lang/program.ts';
import { defaultModel, tinyEngine } from '../engine/fixtures.ts';

let engine: Engine;

test.before(async () => {
  engine = await tinyEngine();
});
test.after.always(() => engine.close());

const shared = 'The rules are long, and they are the same for all who ask. '.repeat(8);
const options = { temperature: 0, maxTokens: 4, ignoreEos: true };

/** Tokens of prompts that did not come from the cache while `body` ran. */
async function computed(body: () => Promise<unknown>): Promise<number> {
  await engine.flushCache();
  const before = engine.stats();
  await body();
  const { promptTokensTotal, cachedPromptTokensTotal } = engine.stats();
  return promptTokensTotal - before.promptTokensTotal - (cachedPromptTokensTotal - before.cachedPromptTokensTotal);
}

/** The shared part once, and of each prompt what comes after it; where texts meet a token or two may differ. */
function bound(prompts: readonly string[]): number {
  const head = engine.tokenize(shared).length;
  const rest = prompts.map((prompt) => engine.tokenize(prompt).length - head + 2);
  return head + rest.reduce((sum, n) => sum + n, 0);
}

test.serial('a fork computes what its branches share once', async (t) => {
  const suffixes = Array.from({ length: 8 }, (_, i) => `Question ${i}:`);
  const cached: number[] = [];
  const program = fn(async (s) => {
    const results = await s`${shared}`.forkMap(suffixes, (branch, suffix) => branch`${suffix}${gen('a', options)}`);
    cached.push(...results.map((result) => result.meta('a').cachedTokens));
    return s;
  });
  const tokens = await computed(async () => program.run({}, { backend: engine }));
  const most = bound(suffixes.map((suffix) => shared + suffix));
  t.true(tokens <= most, `${tokens} tokens were computed; at most ${most} are needed`);
  const head = engine.tokenize(shared).length;
  t.true(Math.min(...cached) >= head - 2, `branches had ${cached} of ${head} tokens from the cache`);
});

test.serial('a batch computes what its rows share once, also when all start at once', async (t) => {
  const rows = Array.from({ length: 30 }, (_, n) => ({ n }));
  const program = fn((s, { n }: { n: number }) => s`${shared}Question ${n}:${gen('a', options)}`);
  const tokens = await computed(async () => program.runBatch(rows, { backend: engine }));
  const most = bound(rows.map(({ n }) => `${shared}Question ${n}:`));
  t.true(tokens <= most, `${tokens} tokens were computed; at most ${most} are needed`);
});

test.serial('so does a batch of conversations', async (t) => {
  const rows = Array.from({ length: 10 }, (_, n) => ({ n }));
  const program = fn((s, { n }: { n: number }) => s.system(shared).user(`Question ${n}?`).assistant(gen('a', options)));
  let states: Awaited<ReturnType<typeof program.runBatch>> = [];
  const tokens = await computed(async () => (states = await program.runBatch(rows, { backend: engine })));
  const prompts = states.reduce((sum, state) => sum + state.meta('a').promptTokens, 0);
  const head = engine.tokenize(shared).length;
  t.true(tokens <= prompts - 9 * (head - 2), `${tokens} of ${prompts} tokens were computed; ${head} are shared`);
});

test.serial('a conversation goes on from its turns before', async (t) => {
  const program = fn((s) => s.user(shared).assistant(gen('a', options)).user('More?').assistant(gen('b', options)));
  const result = await program.run({}, { backend: engine });
  const before = result.meta('a').promptTokens + result.meta('a').completionTokens;
  t.true(result.meta('b').cachedTokens >= before - 2, `${result.meta('b').cachedTokens} of ${before} were cached`);
});

/** On a model that needs seconds for its answers, so that they are not done before the abort. */
test.serial('an aborted run frees what all its branches held', async (t) => {
  const slow = await Engine.create({ modelPath: defaultModel });
  t.teardown(() => slow.close());
  const program = fn(async (s) => {
    await s`${shared}`.forkMap([1, 2, 3, 4], (branch, i) => branch`${i}${gen('a', { ...options, maxTokens: 2000 })}`);
    return s;
  });
  const run = program.run({}, { backend: slow });
  while (slow.stats().running < 4) await new Promise((resolve) => setTimeout(resolve, 1));
  run.abort();
  await t.throwsAsync(async () => run, { name: 'AbortError' });
  while (slow.stats().running > 0) await new Promise((resolve) => setTimeout(resolve, 1));
  const { abortedTotal, leasedTokens } = slow.stats();
  t.deepEqual({ abortedTotal, leasedTokens }, { abortedTotal: 4, leasedTokens: 0 });
});
