/** Sessions served by a scripted peer. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { serve } from '../sessions.mjs';

/** A peer whose prompts are numbers: it takes that many turns of the event loop before its tokens. */
function slowPeer({ tokens = (maxTokens) => maxTokens } = {}) {
  const peer = { open: 0, most: 0 };
  peer.generate = async ({ prompt, maxTokens, onToken }) => {
    peer.most = Math.max(peer.most, ++peer.open);
    for (let n = 0; n < Number(prompt); n++) await turn();
    const outputIds = Array.from({ length: tokens(maxTokens) }, () => (onToken(), Number(prompt)));
    peer.open--;
    return { promptTokens: 1, outputIds };
  };
  return peer;
}

const asking = (...prompts) => prompts.map((prompt) => (generate) => generate({ prompt, maxTokens: 2 }));

for (const streams of [1, 3, 8]) {
  test(`${streams} streams keep as many sessions open, and all are served in order`, async () => {
    const peer = slowPeer();
    const { served } = await serve(peer.generate, asking('9', '1', '5', '2', '7', '1'), streams);
    assert.equal(peer.most, Math.min(streams, 6));
    assert.deepEqual(
      served.map(({ outputIds }) => outputIds[0]),
      [9, 1, 5, 2, 7, 1],
    );
  });
}

test('a session may ask again with what it was answered', async () => {
  const dialogue = async (generate) => {
    const { outputIds } = await generate({ prompt: '3', maxTokens: 1 });
    await generate({ prompt: String(outputIds[0] + 1), maxTokens: 2 });
  };
  const { served } = await serve(slowPeer().generate, [dialogue], 1);
  assert.deepEqual(
    served.map(({ outputIds }) => outputIds),
    [[3], [4, 4]],
  );
});

test('a peer that makes fewer tokens than asked is refused', async () => {
  const { generate } = slowPeer({ tokens: (maxTokens) => maxTokens - 1 });
  await assert.rejects(serve(generate, asking('1'), 1), {
    message: 'the prompt "1"…: 1 ids and 1 tokens, not 2 of each',
  });
});
