/** Files that are written are read back; numbers and pieces of words are what they should be. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { F16, F32, readHeader, tensorBytes, UINT32, writeFile } from '../gguf.mjs';
import { float16 } from '../random-model.mjs';
import { longestPieces } from '../vocabulary.mjs';

test('what is written is what is read', (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'gguf-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = path.join(folder, 'tiny.gguf');
  const entries = {
    'general.architecture': { type: 8, value: 'llama' },
    'llama.block_count': { type: UINT32, value: 2 },
    'llama.rope.freq_base': { type: 6, value: 0.5 },
    'tokenizer.ggml.tokens': { type: 9, value: { type: 8, items: ['a', 'Ġb', 'é'] } },
  };
  const tensors = [
    { name: 'one', shape: [5], type: F32 },
    { name: 'two', shape: [3, 7], type: F16 },
  ];
  writeFile(file, entries, tensors, ({ name, ...tensor }) => [Buffer.alloc(tensorBytes(tensor), name)]);
  const read = readHeader(file);
  assert.deepEqual(read.entries, entries);
  assert.deepEqual(read.tensors, [
    { ...tensors[0], offset: 0 },
    { ...tensors[1], offset: 32 },
  ]);
  const bytes = readFileSync(file);
  assert.equal(bytes.length % 32, 0);
  assert.equal(bytes.toString('latin1', read.contentAt + 32, read.contentAt + 38), 'twotwo');
});

test('half precision is that of IEEE 754', () => {
  const cases = [
    [0, 0x0000],
    [1, 0x3c00],
    [-2, 0xc000],
    [0.1, 0x2e66],
    [65504, 0x7bff],
    [1e-9, 0x0000],
  ];
  for (const [value, bits] of cases) assert.equal(float16(value), bits, `${value}`);
});

test('text is cut into the longest pieces there are', () => {
  const ids = new Map(['a', 'b', 'ab', 'abc', 'Ġ', 'Ġab'].map((piece, id) => [piece, id]));
  assert.deepEqual(longestPieces(ids, 'abcabĠabĠb'), [3, 2, 5, 4, 1]);
  assert.throws(() => longestPieces(ids, 'abz'), /no piece for "z"/);
});
