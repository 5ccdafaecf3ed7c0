/**
 * Every workload, in full and quick, served by a scripted peer: that it asks for what its title says, and how much of it an
 * ideal cache shares.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { oracleHitRate } from '../oracle.mjs';
import { serve } from '../sessions.mjs';
import { CACHE_TOKENS, groups, workloads } from '../workloads.mjs';

/** A vocabulary of letters: each character is a token, `<` stands for the start of a prompt. */
const encode = (text, start) => Array.from(start ? `<${text}` : text, (character) => character.codePointAt(0));

/** A peer that answers with ids that depend on the prompt. */
async function answer({ prompt, maxTokens, onToken }) {
  const outputIds = Array.from({ length: maxTokens }, (_, i) => (onToken(), 100_000 + ((prompt.at(-1) + i) % 7)));
  return { outputIds, cachedTokens: 0 };
}

async function served(id, kind, streams = workloads[id].streams[0]) {
  const { phases, contextLength, [kind]: size } = workloads[id];
  const { served } = await serve(answer, phases(size, encode, streams), streams);
  const longest = Math.max(...served.map(({ request: { prompt, maxTokens } }) => prompt.length + maxTokens));
  return { served, longest, room: contextLength(size) };
}

/** Requests, prompt tokens, output tokens, and the share that an ideal cache saves, of whole workloads. */
const shapes = {
  W1: [64, 64 * 1528, 64 * 16, 0.958],
  W2: [168, 8 * 300 + 32 * 360 + 128 * 420, 40 + 128 * 32, 0.82],
  W3: [64, 16 * 4 * (120 + 1.5 * 184), 64 * 64, 0.7],
  W6: [80, 16 * 5 * 840 + 16 * 92 * 10, 80 * 32, 0.92],
  W7: [32, 32 * 512, 32 * 64, 0.967],
  W8: [48, 48 * 640, 48 * 32, 0.78],
  W9: [32, 32 * 1040, 32 * 32, 0.4],
  'prefill-512': [3, 3 * 512, 3, 0],
  'prefill-2048': [3, 3 * 2048, 3, 0],
  decode: [1, 32, 128, 0],
  'common-prefix': [66, 50 + 2000 + 32 * (58 + 2008), 2 + 64 * 64, 0.96],
  'long-prompt': [6, 5 * 32 + 4000, 4 * 256 + 32 + 1, 0],
};

for (const [id, [requests, promptTokens, outputTokens, shared]] of Object.entries(shapes)) {
  test(`${id} asks for what its title says`, async () => {
    const { served: all } = await served(id, 'size');
    const sum = (of) => all.reduce((total, each) => total + of(each), 0);
    assert.equal(all.length, requests);
    assert.equal(
      sum(({ request }) => request.prompt.length),
      promptTokens,
    );
    assert.equal(
      sum(({ outputIds }) => outputIds.length),
      outputTokens,
    );
    const rate = oracleHitRate(
      all.map(({ request: { prompt }, outputIds }) => ({ prompt, outputIds })),
      CACHE_TOKENS,
    );
    assert.ok(Math.abs(rate - shared) < 0.03, `${rate}`);
  });
}

test('as many prompts as streams are decoded together', async () => {
  for (const streams of workloads.batched.streams) {
    assert.equal((await served('batched', 'size', streams)).served.length, streams);
  }
});

test('W5 computes its prompts, and then has them answered without a schema and with it', async () => {
  const { served: all } = await served('W5', 'size');
  const prompts = all.map(({ request }) => request.prompt.join());
  assert.equal(prompts.length, 3 * 16);
  assert.deepEqual(prompts.slice(16, 32), prompts.slice(0, 16));
  assert.deepEqual(prompts.slice(32), prompts.slice(0, 16));
  assert.deepEqual(
    all.map(({ request }) => !!request.jsonSchema),
    Array.from({ length: 48 }, (_, i) => i >= 32),
  );
});

for (const id of Object.keys(workloads)) {
  test(`${id} runs quick, and no sequence is longer than it says`, async () => {
    for (const kind of id === 'W4' || id === 'W5' ? [] : ['size', 'quick']) {
      const { longest, room } = await served(id, kind);
      assert.ok(longest <= room, `${longest} of ${room}`);
    }
    const quick = await served(id, 'quick');
    assert.ok(quick.served.length > 0 && quick.served.every(({ outputIds }) => outputIds.length <= 160));
  });
}

test('a group names workloads that there are', () => {
  for (const id of Object.values(groups).flat()) assert.ok(workloads[id], id);
  assert.deepEqual(groups.W, ['W1', 'W2', 'W3', 'W4', 'W5', 'W6', 'W7', 'W8', 'W9']);
});
