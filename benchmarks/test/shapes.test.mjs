/** Models of random weights in small: the formats of their shapes, what they cost, and that they load and decode. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { F32, Q4_0, Q4_K, Q6_K, readHeader, tensorBytes } from '../gguf.mjs';
import { modelSize } from '../model-size.mjs';
import { shapes, writeRandomModel } from '../random-model.mjs';
import { measureShape } from '../shapes.mjs';

const vocabulary = fileURLToPath(new URL('../../crates/engine/tests/fixtures/gguf/Q8_0.gguf', import.meta.url));
const isBuilt = existsSync(new URL('../../ts/sglang/dist/index.js', import.meta.url));
const small = { layers: 8, hidden: 256, heads: { q: 4, kv: 2, size: 64 }, ffn: 512 };

function write(t, name) {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'shape-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = path.join(folder, 'small.gguf');
  const { format, experts } = shapes[name];
  writeRandomModel(file, { ...small, format, experts }, vocabulary);
  return file;
}

test('the mixture of formats is that of Q4_K_M: half of the values and of the down projections have six bits', (t) => {
  const { tensors, contentAt } = readHeader(write(t, 'llama-2-7b-q4_k_m'));
  const named = (part) => tensors.filter(({ name }) => `.${name}`.includes(`.${part}`)).map(({ type }) => type);
  const half = [Q6_K, Q4_K, Q4_K, Q6_K, Q4_K, Q4_K, Q6_K, Q6_K];
  assert.deepEqual(named('attn_v'), half);
  assert.deepEqual(named('ffn_down'), half);
  assert.deepEqual(named('attn_q'), Array(8).fill(Q4_K));
  assert.deepEqual([...named('token_embd'), ...named('output.')], [Q4_K, Q6_K]);
  assert.ok(tensors.every(({ offset }, i) => i === 0 || offset > tensors[i - 1].offset) && contentAt > 0);
});

test('one token takes some of the experts', (t) => {
  const file = write(t, 'mixtral-8x-small-q4_0');
  const { tensors } = readHeader(file);
  const bytes = (part) => tensorBytes(tensors.find(({ name }) => `.${name}`.includes(`.${part}`)));
  const attention = ['attn_q', 'attn_k', 'attn_v', 'attn_output', 'ffn_gate_inp'].map(bytes);
  const experts = ['ffn_gate_exps', 'ffn_up_exps', 'ffn_down_exps'].map(bytes);
  const layer = attention.reduce((a, b) => a + b) + (2 / 8) * experts.reduce((a, b) => a + b);
  assert.equal(modelSize(file).bytesPerStep, 8 * layer + bytes('output.'));
  assert.deepEqual(tensors.find(({ name }) => name.includes('ffn_down_exps')).shape, [512, 256, 8]);
  assert.equal(tensors.find(({ name }) => name.includes('ffn_up_exps')).type, Q4_0);
  assert.equal(tensors.find(({ name }) => name.includes('ffn_gate_inp')).type, F32);
  const last = tensors.at(-1);
  assert.ok(statSync(file).size >= readHeader(file).contentAt + last.offset + tensorBytes(last));
});

for (const name of Object.keys(shapes)) {
  test(`${name} in small loads with progress and decodes`, { skip: isBuilt ? false : 'not built' }, async (t) => {
    const { progress, tokensPerSecond } = await measureShape(write(t, name), { threads: 1 });
    assert.ok(progress > 10, 'the share that is done rises to 1');
    assert.ok(tokensPerSecond > 0);
  });
}
