/** Sessions served by a scripted peer. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { serve } from '../sessions.mjs';

/** A peer whose prompts are one number: it takes that many turns of the event loop before its tokens. */
function slowPeer({ tokens = (maxTokens) => maxTokens } = {}) {
  const peer = { open: 0, most: 0 };
  peer.generate = async ({ prompt: [turns], maxTokens, onToken }) => {
    peer.most = Math.max(peer.most, ++peer.open);
    for (let n = 0; n < turns; n++) await turn();
    const outputIds = Array.from({ length: tokens(maxTokens) }, () => (onToken(), turns));
    peer.open--;
    return { outputIds, cachedTokens: 0 };
  };
  return peer;
}

const asking = (...turns) => turns.map((each) => (generate) => generate({ prompt: [each], maxTokens: 2 }));

for (const streams of [1, 3, 8]) {
  test(`${streams} streams keep as many sessions open, and all are served in order`, async () => {
    const peer = slowPeer();
    const { served } = await serve(peer.generate, [asking(9, 1, 5, 2, 7, 1)], streams);
    assert.equal(peer.most, Math.min(streams, 6));
    assert.deepEqual(
      served.map(({ outputIds }) => outputIds[0]),
      [9, 1, 5, 2, 7, 1],
    );
  });
}

test('a session may ask again with what it was answered', async () => {
  const dialogue = async (generate) => {
    const { outputIds } = await generate({ prompt: [3], maxTokens: 1 });
    await generate({ prompt: [outputIds[0] + 1], maxTokens: 2 });
  };
  const { served } = await serve(slowPeer().generate, [[dialogue]], 1);
  assert.deepEqual(
    served.map(({ outputIds }) => outputIds),
    [[3], [4, 4]],
  );
});

test('a phase begins when the one before has ended', async () => {
  const { served } = await serve(slowPeer().generate, [asking(9, 1), asking(1, 1)], 4);
  const ends = served.map(({ startMs, tokenTimesMs }) => startMs + tokenTimesMs.at(-1));
  assert.ok(served.slice(2).every(({ startMs }) => startMs >= Math.max(ends[0], ends[1])));
});

test('a peer that makes fewer tokens than asked is refused, unless a schema ended them', async () => {
  const { generate } = slowPeer({ tokens: (maxTokens) => maxTokens - 1 });
  await assert.rejects(serve(generate, [asking(1)], 1), {
    message: '1 ids and 1 tokens came, not 2 of each after 1 tokens',
  });
  const constrained = (ask) => ask({ prompt: [1], maxTokens: 2, jsonSchema: {} });
  assert.equal((await serve(generate, [[constrained]], 1)).served[0].outputIds.length, 1);
  const silent = slowPeer({ tokens: () => 0 });
  await assert.rejects(serve(silent.generate, [[constrained]], 1), { message: /^0 ids/ });
});
