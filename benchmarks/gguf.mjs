/**
 * GGUF files, as far as benchmarks need them: reading what is before the tensors, and writing a file.
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 *
 * @typedef {{ type: number, value: any }} Entry  `type` as in the file; an array's value is `{ type, items }`
 * @typedef {{ name: string, shape: number[], type: number }} Tensor  the length of a row comes first
 */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';

/** More than the metadata of any vocabulary takes. */
const HEAD_BYTES = 64 << 20;
const ALIGNMENT = 32;
const STRING = 8;
const ARRAY = 9;

/** Scalars by type: bytes, and the names of Buffer's methods. */
const scalars = {
  0: [1, 'UInt8'],
  1: [1, 'Int8'],
  2: [2, 'UInt16LE'],
  3: [2, 'Int16LE'],
  4: [4, 'UInt32LE'],
  5: [4, 'Int32LE'],
  6: [4, 'FloatLE'],
  7: [1, 'UInt8'],
  10: [8, 'BigUInt64LE'],
  11: [8, 'BigInt64LE'],
  12: [8, 'DoubleLE'],
};

/** Values per block and bytes of a block, of the types that occur in the models measured here. */
const blocks = {
  0: [1, 4],
  1: [1, 2],
  2: [32, 18],
  3: [32, 20],
  8: [32, 34],
  12: [256, 144],
  13: [256, 176],
  14: [256, 210],
  30: [1, 2],
};
export const F32 = 0;
export const F16 = 1;
export const Q4_0 = 2;
export const Q4_K = 12;
export const Q6_K = 14;
export const UINT32 = 4;

export function tensorBytes({ shape, type }) {
  if (!blocks[type]) throw new Error(`GGUF tensors of type ${type} are not known here`);
  const [values, bytes] = blocks[type];
  return (shape.reduce((a, b) => a * b) / values) * bytes;
}

/**
 * @param {string} path
 * @returns {{ entries: Record<string, Entry>, tensors: (Tensor & { offset: number })[], contentAt: number }}
 *   a tensor's bytes begin at `contentAt + offset`
 */
export function readHeader(path) {
  const file = openSync(path, 'r');
  const bytes = Buffer.alloc(HEAD_BYTES);
  readSync(file, bytes, 0, HEAD_BYTES, 0);
  closeSync(file);
  let at = 0;
  const scalar = (type) => {
    const [size, kind] = scalars[type];
    at += size;
    return bytes[`read${kind}`](at - size);
  };
  const count = () => Number(scalar(10));
  const text = () => {
    const length = count();
    at += length;
    return bytes.toString('utf8', at - length, at);
  };
  const value = (type) => {
    if (type === STRING) return text();
    if (type !== ARRAY) return scalar(type);
    const of = scalar(UINT32);
    return { type: of, items: Array.from({ length: count() }, () => value(of)) };
  };
  if (bytes.toString('latin1', 0, 4) !== 'GGUF') throw new Error(`${path} is not a GGUF file`);
  at = 8;
  const [tensorCount, entryCount] = [count(), count()];
  /** @type {Record<string, Entry>} */
  const entries = {};
  for (let i = 0; i < entryCount; i++) {
    const [name, type] = [text(), scalar(UINT32)];
    entries[name] = { type, value: value(type) };
  }
  const tensors = Array.from({ length: tensorCount }, () => {
    const name = text();
    const shape = Array.from({ length: scalar(UINT32) }, count);
    return { name, shape, type: scalar(UINT32), offset: count() };
  });
  return { entries, tensors, contentAt: Math.ceil(at / ALIGNMENT) * ALIGNMENT };
}

/**
 * @param {string} path
 * @param {Record<string, Entry>} entries
 * @param {Tensor[]} tensors
 * @param {(tensor: Tensor) => Iterable<Buffer>} content  the bytes of a tensor, in pieces
 */
export function writeFile(path, entries, tensors, content) {
  const file = openSync(path, 'w');
  const head = header(entries, tensors);
  let written = writeSync(file, head);
  const fill = () => (written += writeSync(file, Buffer.alloc(-written & (ALIGNMENT - 1))));
  for (const tensor of tensors) {
    fill();
    for (const piece of content(tensor)) written += writeSync(file, piece);
  }
  fill();
  closeSync(file);
}

function header(entries, tensors) {
  const parts = [];
  const scalar = (type, value) => {
    const [size, kind] = scalars[type];
    const bytes = Buffer.alloc(size);
    bytes[`write${kind}`](value);
    parts.push(bytes);
  };
  const count = (n) => scalar(10, BigInt(n));
  const text = (string) => {
    const bytes = Buffer.from(string);
    count(bytes.length);
    parts.push(bytes);
  };
  const value = (type, content) => {
    if (type === STRING) return text(content);
    if (type !== ARRAY) return scalar(type, content);
    scalar(UINT32, content.type);
    count(content.items.length);
    content.items.forEach((item) => value(content.type, item));
  };
  parts.push(Buffer.from('GGUF'));
  scalar(UINT32, 3);
  count(tensors.length);
  count(Object.keys(entries).length);
  for (const [name, entry] of Object.entries(entries)) {
    text(name);
    scalar(UINT32, entry.type);
    value(entry.type, entry.value);
  }
  let offset = 0;
  for (const tensor of tensors) {
    text(tensor.name);
    scalar(UINT32, tensor.shape.length);
    tensor.shape.forEach(count);
    scalar(UINT32, tensor.type);
    count(offset);
    offset += Math.ceil(tensorBytes(tensor) / ALIGNMENT) * ALIGNMENT;
  }
  return Buffer.concat(parts);
}
