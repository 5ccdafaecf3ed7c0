/** The roof of a model of round numbers, and the line that the kernels' bench prints. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRoof, roofs } from '../peers/roof.mjs';

const model = {
  bytesPerStep: 90,
  kvBytesPerToken: 1,
  layerOperations: 40,
  headOperations: 100,
  attentionOperations: (positions) => positions,
};

test('the speeds are read from the line of the bench', () => {
  const line = 'cpu (avx512vnni, 2 threads): reads 27.5 GB/s, int8 897 GOP/s, f32 225 GFLOP/s, fork and join 0.12 us\n';
  assert.deepEqual(parseRoof(line), { read: 27.5e9, int8: 897e9, f32: 225e9 });
});

test('prefill is layers and one head in integers, attention in floats', () => {
  assert.equal(roofs.prefill(model, { int8: 10, f32: 11 }, { prompt: 10 }), 10 / (50 + 55 / 11));
});

test('decoding reads the weights once and what is in the cache half way', () => {
  assert.equal(roofs.decode(model, { read: 1000 }, { prompt: 6, tokens: 8 }), 10);
});
