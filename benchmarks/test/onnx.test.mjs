/** Bytes of ONNX: worked out by hand, and blocks that say the same numbers in both orders. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { onnxModel, UINT8 } from '../onnx-file.mjs';
import { dequantized, repacked } from '../onnx-model.mjs';

test('a graph is a protocol buffer', () => {
  const bytes = onnxModel({
    nodes: [{ op: 'Neg', inputs: ['x'], outputs: ['y'], attributes: { a: -1, b: 0.5 } }],
    constants: [{ name: 'c', shape: [300], type: UINT8, bytes: Buffer.from('z') }],
    inputs: [{ name: 'x', shape: ['n', 2], type: UINT8 }],
    outputs: [],
  });
  const hex = bytes.toString('hex');
  assert.ok(hex.startsWith('080a3a'), hex);
  const parts = {
    names: '0a0178' + '120179' + '22034e6567',
    negative: '0a0161' + '18ffffffffffffffffff01' + 'a00102',
    half: '0a0162' + '150000003f' + 'a00101',
    constant: '08ac02' + '1002' + '420163' + '4a017a',
    input: '0a0178' + '120f' + '0a0d' + '0802' + '1209' + '0a03' + '12016e' + '0a02' + '0802',
  };
  for (const [name, part] of Object.entries(parts)) assert.ok(hex.includes(part), `${name} in ${hex}`);
});

test('a block of Q4_0 and one of ONNX are the same numbers', () => {
  const bytes = Buffer.alloc(2 * 18, 0x3c);
  for (let i = 0; i < 32; i++) bytes[(i < 16 ? 2 : 4) + i] = (i * 73) & 255;
  bytes.writeUInt16LE(0x3800, 0);
  bytes.writeUInt16LE(0xc000, 18);
  const { nibbles, scales } = repacked(bytes);
  const values = Array.from({ length: 64 }, (_, i) => {
    const byte = nibbles[i >> 1];
    return scales.readFloatLE(4 * (i >> 5)) * ((i % 2 ? byte >> 4 : byte & 15) - 8);
  });
  const expected = dequantized(bytes);
  assert.deepEqual(
    values,
    Array.from({ length: 64 }, (_, i) => expected.readFloatLE(4 * i)),
  );
  assert.equal(values[0], 0.5 * ((0 & 15) - 8));
  assert.equal(values[17], 0.5 * (((73 & 255) >> 4) - 8));
});
