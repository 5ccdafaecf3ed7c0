/**
 * Many requests of random shape in one process, on a cache that is far too small: none is stuck, none gets a wrong text,
 * no page is lost, and memory does not grow. `SGLANG_ENDURANCE` sets how many.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import test from 'ava';
import type { Engine } from '../../src/engine/engine.ts';
import type { GenerateRequest, GenerateResult } from '../../src/engine/types.ts';
import { tinyEngine } from '../engine/fixtures.ts';

const count = Number(process.env['SGLANG_ENDURANCE'] ?? 400);
/** Requests under way at once: some run, some wait. */
const width = 24;
/** Different requests; each is run alone once, to know what it must say. */
const kinds = Math.min(400, Math.ceil(count / 10));

/** Numbers in [0, 1), the same in every run. */
function dice(seed: number): () => number {
  return () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
}

const roll = dice(7);
const below = (n: number) => Math.floor(roll() * n);
const oneIn = (n: number) => below(n) === 0;
const roots = [1, 2, 3, 4].map((root) => Array.from({ length: 120 }, (_, i) => 10 + ((root * 31 + i * 7) % 400)));

function randomRequest(): GenerateRequest {
  const tail = Array.from({ length: 1 + below(30) }, () => 10 + below(400));
  const constraint = oneIn(8)
    ? { regex: '(yes|no), [a-z]{2,9}[.]' }
    : oneIn(12)
      ? { jsonSchema: '{"type":"object","properties":{"a":{"type":"boolean"}},"required":["a"]}' }
      : {};
  const samplingParams = { temperature: below(2), seed: below(100), maxNewTokens: below(25), ...constraint };
  return {
    inputIds: [...roots[below(4)]!.slice(0, below(120)), ...tail],
    samplingParams: { ...samplingParams, ...(oneIn(6) && { stop: ['a', 'th'] }) },
    priority: below(3),
    ...(oneIn(5) && { cacheSalt: `tenant ${below(3)}` }),
    ...(oneIn(6) && { returnLogprob: true, logprobStartLen: 0, topLogprobsNum: 2 }),
  };
}

/** All that must be the same whatever else runs. */
function said({ text, outputIds, meta }: GenerateResult) {
  const { finishReason, inputLogprobs, outputLogprobs } = meta;
  return JSON.stringify({ text, outputIds, finishReason, inputLogprobs, outputLogprobs });
}

async function ask(engine: Engine, request: GenerateRequest, expected: string): Promise<'right' | 'wrong' | 'aborted'> {
  const generation = engine.generate(request);
  if (oneIn(20)) generation.abort();
  let left = oneIn(8) ? below(6) : Infinity;
  for await (const _ of generation) if (left-- === 0) break;
  const result = await generation;
  if (result.meta.finishReason.type === 'abort') return 'aborted';
  return said(result) === expected ? 'right' : 'wrong';
}

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** Resident memory in MiB, without what JavaScript has let go of. */
function residentMiB(): number {
  collectGarbage();
  return process.memoryUsage().rss / 2 ** 20;
}

test(`${count} requests of random shape leave nothing behind`, async (t) => {
  // AVA gives up its own limit, that of all files, for as long as a test asks for.
  if (process.env['SGLANG_ENDURANCE']) t.timeout(3_600_000);
  const engine = await tinyEngine({ maxTotalTokens: 512, maxRunningRequests: 8, chunkedPrefillSize: 48 });
  const requests = Array.from({ length: kinds }, randomRequest);
  const expected: string[] = [];
  for (const request of requests) expected.push(said(await engine.generate(request)));

  const outcomes = { right: 0, wrong: 0, aborted: 0 };
  const memory: number[] = [];
  let started = 0;
  const worker = async () => {
    while (started < count) {
      if (started++ % Math.ceil(count / 8) === 0) memory.push(residentMiB());
      const kind = below(kinds);
      outcomes[await ask(engine, requests[kind]!, expected[kind]!)]++;
    }
  };
  await Promise.all(Array.from({ length: width }, worker));
  memory.push(residentMiB());

  const stats = engine.stats();
  t.log({ ...outcomes, memory: memory.map(Math.round), ...stats });
  t.is(outcomes.wrong, 0);
  t.is(outcomes.right + outcomes.aborted, count);
  t.true(outcomes.aborted > 0 && stats.evictedTokensTotal > 0 && stats.cachedPromptTokensTotal > 0, 'all did happen');
  t.deepEqual([stats.running, stats.waiting, stats.leasedTokens], [0, 0, 0]);
  t.is(stats.evictableTokens, stats.cachedTokens);
  t.is(stats.freeTokens + stats.cachedTokens, stats.totalTokens);
  t.true((await engine.radix()).every(({ leases }) => leases === 0));
  await engine.flushCache();
  t.is(engine.stats().freeTokens, engine.stats().totalTokens);
  const [warm, end] = [memory[2]!, memory.at(-1)!];
  t.true(end < warm * 1.05 + 8, `memory grew from ${warm} to ${end} MiB`);
  await engine.close();
});
