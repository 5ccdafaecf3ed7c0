/** Every peer is what the interface says, without being installed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formats } from '../models.mjs';
import { peerModule, peerNames } from '../peers/peer.mjs';
import { workloads } from '../workloads.mjs';

for (const name of peerNames()) {
  test(`${name} says who it is, how it is asked, and how it is got`, async () => {
    const peer = await peerModule(name);
    assert.equal(peer.name, name);
    assert.ok(peer.notes.length > 0 && peer.notes.every((note) => typeof note === 'string'));
    assert.equal(typeof peer.install, 'function');
    assert.equal([peer.load, peer.measure].filter((each) => typeof each === 'function').length, 1);
  });
}

test('a program that only computes is not asked for whole workloads', async () => {
  for (const name of ['llama-bench', 'roof']) {
    const { measure } = await peerModule(name);
    await assert.rejects(
      measure('', { threads: 1, streams: 1, size: {}, rate: 'output' }),
      /prefill and decoding only/,
    );
  }
});

test('fields name peers and formats that there are, ours first', () => {
  for (const [id, { fields }] of Object.entries(workloads)) {
    for (const field of fields) {
      assert.match(field[0], /^sglang(@|$)/, id);
      for (const contestant of field) {
        const [peer, format] = contestant.split('@');
        assert.ok(peerNames().includes(peer) && (format === undefined || formats.includes(format)), contestant);
      }
    }
  }
});
