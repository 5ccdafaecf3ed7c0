/**
 * Models whose weights are random: what a model of some shape costs, without a download. Blocks of quantized formats are
 * written as they are, so that no quantizer and no larger file is needed.
 *
 * @typedef {object} Shape
 * @property {number} layers
 * @property {number} hidden
 * @property {{ q: number, kv: number, size: number }} heads
 * @property {number} ffn                                 of one expert where there are several
 * @property {{ count: number, used: number }} [experts]
 * @property {(part: string, layer: number, layers: number) => number} format  the type of a matrix; `part` as in GGUF
 */
import { F16, F32, Q4_0, Q4_K, Q6_K, readHeader, tensorBytes, UINT32, writeFile } from './gguf.mjs';

/** Standard deviation of the weights: activations then keep their size from layer to layer. */
const DEVIATION = 0.02;
/** Values or blocks that are drawn once; tensors are made of pieces of them. Odd primes, so that no two rows are alike. */
const POOL = { values: 65_521, blocks: 8191 };

/** Formats as llama.cpp's mixture Q4_K_M has them: some matrices that matter more have more bits. */
function q4km(part, layer, layers) {
  const eighth = Math.floor(layers / 8);
  const more = layer < eighth || layer >= layers - eighth || (layer - eighth) % 3 === 2;
  return part === 'output' || (more && /^(attn_v|ffn_down)$/.test(part)) ? Q6_K : Q4_K;
}

/** @type {Record<string, Shape>} */
export const shapes = {
  'llama-1.1b-f16': {
    layers: 22,
    hidden: 2048,
    heads: { q: 32, kv: 4, size: 64 },
    ffn: 5632,
    format: () => F16,
  },
  'llama-2-7b-q4_k_m': {
    layers: 32,
    hidden: 4096,
    heads: { q: 32, kv: 32, size: 128 },
    ffn: 11_008,
    format: q4km,
  },
  'mistral-7b-q4_0': {
    layers: 32,
    hidden: 4096,
    heads: { q: 32, kv: 8, size: 128 },
    ffn: 14_336,
    format: (part) => (part === 'output' ? Q6_K : Q4_0),
  },
  'mixtral-8x-small-q4_0': {
    layers: 16,
    hidden: 2048,
    heads: { q: 32, kv: 8, size: 64 },
    ffn: 2048,
    experts: { count: 8, used: 2 },
    format: (part) => (part === 'output' ? Q6_K : Q4_0),
  },
};

/**
 * @param {string} file
 * @param {Shape} shape
 * @param {string} vocabularyFrom  a GGUF file whose vocabulary, context and kind the model gets
 */
export function writeRandomModel(file, shape, vocabularyFrom) {
  const { entries } = readHeader(vocabularyFrom);
  const vocabulary = entries['tokenizer.ggml.tokens'].value.items.length;
  const settings = {
    block_count: shape.layers,
    embedding_length: shape.hidden,
    feed_forward_length: shape.ffn,
    'attention.head_count': shape.heads.q,
    'attention.head_count_kv': shape.heads.kv,
    'rope.dimension_count': shape.heads.size,
    ...(shape.experts && { expert_count: shape.experts.count, expert_used_count: shape.experts.used }),
  };
  const sized = Object.entries(settings).map(([name, value]) => [`llama.${name}`, { type: UINT32, value }]);
  const all = { ...entries, ...Object.fromEntries(sized) };
  all['general.file_type'] = { type: UINT32, value: 1 };
  writeFile(file, all, tensors(shape, vocabulary), content());
}

/** @returns {import('./gguf.mjs').Tensor[]} */
function tensors({ layers, hidden, heads, ffn, experts, format }, vocabulary) {
  const norm = (name) => ({ name: `${name}.weight`, shape: [hidden], type: F32 });
  const matrix = (name, ...shape) => {
    const [, layer, part] = /^(?:blk\.(\d+)\.)?(.*?)(?:_exps)?$/.exec(name);
    return { name: `${name}.weight`, shape, type: format(part, Number(layer ?? -1), layers) };
  };
  const stack = experts ? [experts.count] : [];
  const suffix = experts ? '_exps' : '';
  const router = (blk) => ({ name: `${blk}.ffn_gate_inp.weight`, shape: [hidden, experts.count], type: F32 });
  const layer = (_, i) => {
    const blk = `blk.${i}`;
    return [
      norm(`${blk}.attn_norm`),
      matrix(`${blk}.attn_q`, hidden, heads.q * heads.size),
      matrix(`${blk}.attn_k`, hidden, heads.kv * heads.size),
      matrix(`${blk}.attn_v`, hidden, heads.kv * heads.size),
      matrix(`${blk}.attn_output`, heads.q * heads.size, hidden),
      norm(`${blk}.ffn_norm`),
      ...(experts ? [router(blk)] : []),
      matrix(`${blk}.ffn_gate${suffix}`, hidden, ffn, ...stack),
      matrix(`${blk}.ffn_up${suffix}`, hidden, ffn, ...stack),
      matrix(`${blk}.ffn_down${suffix}`, ffn, hidden, ...stack),
    ];
  };
  const ends = [norm('output_norm'), matrix('output', hidden, vocabulary)];
  return [matrix('token_embd', hidden, vocabulary), ...Array.from({ length: layers }, layer).flat(), ...ends];
}

/** The bytes of a tensor: ones for a norm, slices of a pool for a matrix. */
function content() {
  const random = uniform();
  const pools = new Map();
  const poolOf = (type) => {
    const length = type === F32 || type === F16 ? POOL.values : POOL.blocks;
    if (!pools.has(type)) pools.set(type, Buffer.concat(Array.from({ length }, () => draw[type](random))));
    return pools.get(type);
  };
  return function* (tensor) {
    if (tensor.shape.length === 1) return yield Buffer.from(new Float32Array(tensor.shape[0]).fill(1).buffer);
    const [pool, total] = [poolOf(tensor.type), tensorBytes(tensor)];
    for (let done = 0; done < total; done += pool.length) yield pool.subarray(0, Math.min(pool.length, total - done));
  };
}

/** One block of each format; deviations of evenly spread quants are those of their ranges: n / √12. */
const draw = {
  [F32]: (random) => Buffer.from(new Float32Array([DEVIATION * normal(random)]).buffer),
  [F16]: (random) => halves(DEVIATION * normal(random)),
  /** `d · (q − 8)`, q in 0 … 15. */
  [Q4_0]: (random) => Buffer.concat([halves((DEVIATION * Math.sqrt(12)) / 16), bytes(random, 16)]),
  /** `d · 32 · q − dmin · 32`, all scales and minima being 32 of their six bits. */
  [Q4_K](random) {
    const d = (DEVIATION * Math.sqrt(12)) / 16 / 32;
    return Buffer.concat([halves(d, 7.5 * d), Buffer.alloc(8, 0xa0), Buffer.alloc(4), bytes(random, 128)]);
  },
  /** `d · 8 · (q − 32)`, q in 0 … 63. */
  [Q6_K](random) {
    const d = (DEVIATION * Math.sqrt(12)) / 64 / 8;
    return Buffer.concat([bytes(random, 128), bytes(random, 64), Buffer.alloc(16, 8), halves(d)]);
  },
};

function halves(...values) {
  return Buffer.from(new Uint16Array(values.map(float16)).buffer);
}

function bytes(random, n) {
  return Buffer.from(Array.from({ length: n }, () => 256 * random()));
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
