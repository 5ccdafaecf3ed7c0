/** A Llama of 1.1 B parameters whose weights are random: what a larger model costs, without a download. */
import { F16, F32, readHeader, UINT32, writeFile } from './gguf.mjs';

const LAYERS = 22;
const D = 2048;
const HEADS = { q: 32, kv: 4, size: 64 };
const F = 5632;

/** Random numbers that are drawn once; every tensor is made of pieces of them. An odd prime, so that no two rows are alike. */
const POOL = 1_048_573;
/** Standard deviation of the weights: activations then keep their size from layer to layer. */
const DEVIATION = 0.02;

/**
 * Writes the model in float16.
 * @param {string} file
 * @param {string} vocabularyFrom  a GGUF file whose vocabulary the model gets
 */
export function writeLargeModel(file, vocabularyFrom) {
  const { entries } = readHeader(vocabularyFrom);
  const vocabulary = entries['tokenizer.ggml.tokens'].value.items.length;
  const settings = {
    block_count: LAYERS,
    embedding_length: D,
    feed_forward_length: F,
    'attention.head_count': HEADS.q,
    'attention.head_count_kv': HEADS.kv,
    'rope.dimension_count': HEADS.size,
  };
  const sized = Object.entries(settings).map(([name, value]) => [`llama.${name}`, { type: UINT32, value }]);
  const all = { ...entries, ...Object.fromEntries(sized) };
  all['general.file_type'] = { type: UINT32, value: 1 };
  writeFile(file, all, tensors(vocabulary), content());
}

/** @returns {import('./gguf.mjs').Tensor[]} */
function tensors(vocabulary) {
  const matrix = (name, from, to) => ({ name: `${name}.weight`, shape: [from, to], type: F16 });
  const norm = (name) => ({ name: `${name}.weight`, shape: [D], type: F32 });
  const layer = (_, i) => [
    norm(`blk.${i}.attn_norm`),
    matrix(`blk.${i}.attn_q`, D, HEADS.q * HEADS.size),
    matrix(`blk.${i}.attn_k`, D, HEADS.kv * HEADS.size),
    matrix(`blk.${i}.attn_v`, D, HEADS.kv * HEADS.size),
    matrix(`blk.${i}.attn_output`, HEADS.q * HEADS.size, D),
    norm(`blk.${i}.ffn_norm`),
    matrix(`blk.${i}.ffn_gate`, D, F),
    matrix(`blk.${i}.ffn_up`, D, F),
    matrix(`blk.${i}.ffn_down`, F, D),
  ];
  const layers = Array.from({ length: LAYERS }, layer).flat();
  return [matrix('token_embd', D, vocabulary), ...layers, norm('output_norm'), matrix('output', D, vocabulary)];
}

/** The bytes of a tensor: ones for a norm, slices of the pool for a matrix. */
function content() {
  const pool = Buffer.alloc(2 * POOL);
  const random = uniform();
  for (let i = 0; i < POOL; i++) pool.writeUInt16LE(float16(DEVIATION * normal(random)), 2 * i);
  return function* ({ shape, type }) {
    if (type === F32) return yield Buffer.from(new Float32Array(shape[0]).fill(1).buffer);
    const total = 2 * shape[0] * shape[1];
    for (let done = 0; done < total; done += pool.length) yield pool.subarray(0, Math.min(pool.length, total - done));
  };
}

/** Two uniform numbers to a normal one (Box and Muller, 1958). */
function normal(random) {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** Numbers in [0, 1) that are the same for ever (mulberry32). */
function uniform() {
  let state = 1;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), 1 | state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The bits of a float16, rounded towards zero; what is too small to be normal is 0. */
export function float16(value) {
  const bits = new DataView(new ArrayBuffer(4));
  bits.setFloat32(0, value);
  const [sign, exponent, fraction] = [
    bits.getUint8(0) & 0x80,
    ((bits.getUint16(0) >> 7) & 0xff) - 112,
    bits.getUint32(0) & 0x7fffff,
  ];
  return exponent <= 0 ? sign << 8 : (sign << 8) | (exponent << 10) | (fraction >> 13);
}
