/**
 * A Llama in 4 bits as a graph for onnxruntime, from a GGUF file that is all Q4_0 but for its norms: the blocks of both are
 * the same numbers in another order, so the weights stay what they are. The graph is the one that onnxruntime's own tools
 * make for the CPU: MatMulNBits with int8 activations, GroupQueryAttention with rope inside, the head on the last row only.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { readHeader, tensorBytes } from './gguf.mjs';
import { FLOAT, INT32, INT64, onnxModel, UINT8 } from './onnx-file.mjs';

/** Values of a block of Q4_0, and its bytes: a float16 scale and 4 bits a value. */
const BLOCK = 32;
const BLOCK_BYTES = 18;
/** Products in int8, which is the fastest. */
const ACCURACY = 4;
const MICROSOFT = 'com.microsoft';

/**
 * Writes what transformers.js wants of a model: `config.json` and `onnx/model_q4.onnx`.
 * @param {string} folder
 * @param {string} ggufPath
 */
export function writeOnnxModel(folder, ggufPath) {
  const source = readSource(ggufPath);
  mkdirSync(path.join(folder, 'onnx'), { recursive: true });
  writeFileSync(path.join(folder, 'config.json'), JSON.stringify(config(source)));
  writeFileSync(path.join(folder, 'onnx', 'model_q4.onnx'), onnxModel(graphOf(source)));
}

function readSource(file) {
  const { entries, tensors, contentAt } = readHeader(file);
  const bytes = readFileSync(file);
  const number = (name) => Number(entries[`llama.${name}`].value);
  const [d, q, kv] = [number('embedding_length'), number('attention.head_count'), number('attention.head_count_kv')];
  const content = (tensor) => {
    const from = contentAt + tensor.offset;
    return bytes.subarray(from, from + tensorBytes(tensor));
  };
  return {
    ...{ d, q, kv, headSize: d / q, layers: number('block_count'), context: number('context_length') },
    epsilon: number('attention.layer_norm_rms_epsilon'),
    theta: number('rope.freq_base'),
    ffn: number('feed_forward_length'),
    vocabulary: entries['tokenizer.ggml.tokens'].value.items.length,
    tensor: (name) => {
      const tensor = tensors.find((each) => each.name === `${name}.weight`);
      return { shape: tensor.shape, bytes: content(tensor) };
    },
  };
}

function config({ d, q, kv, headSize, layers, ffn, vocabulary, context, epsilon, theta }) {
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size: d,
    num_attention_heads: q,
    num_key_value_heads: kv,
    head_dim: headSize,
    num_hidden_layers: layers,
    intermediate_size: ffn,
    vocab_size: vocabulary,
    max_position_embeddings: context,
    rms_norm_eps: epsilon,
    rope_theta: theta,
  };
}

function graphOf(source) {
  const { d, kv, headSize, layers, vocabulary } = source;
  const graph = { nodes: [], constants: [] };
  const add = (op, inputs, outputs, rest = {}) => {
    graph.nodes.push({ op, inputs, outputs, ...rest });
    return outputs[0];
  };
  const constant = (name, shape, type, bytes) => {
    graph.constants.push({ name, shape, type, bytes });
    return name;
  };
  const build = { source, add, constant };
  const cache = (kind, i, length) =>
    ['key', 'value'].map((part) => ({
      name: `${kind}.${i}.${part}`,
      shape: ['batch_size', kv, length, headSize],
      type: FLOAT,
    }));
  const each = Array.from({ length: layers }, (_, i) => i);
  const lengths = lengthsOf(build);
  ropeTables(build);
  constant('embedding', [vocabulary, d], FLOAT, dequantized(source.tensor('token_embd').bytes));
  let skip = add('Gather', ['embedding', 'input_ids'], ['embedded']);
  let [x, sum] = ['', skip];
  for (const i of each) [x, sum] = layer(build, i, x, sum, lengths);
  const last = lastRow(build, norm(build, 'output_norm', x, sum).out);
  matmul(build, 'token_embd', last, 'logits');
  return {
    ...graph,
    inputs: [
      { name: 'input_ids', shape: ['batch_size', 'sequence_length'], type: INT64 },
      { name: 'attention_mask', shape: ['batch_size', 'total_sequence_length'], type: INT64 },
      ...each.flatMap((i) => cache('past_key_values', i, 'past_sequence_length')),
    ],
    outputs: [
      { name: 'logits', shape: ['batch_size', 1, vocabulary], type: FLOAT },
      ...each.flatMap((i) => cache('present', i, 'total_sequence_length')),
    ],
  };
}

/** Names of what attention wants to know: the last position of each sequence, and the longest sequence. */
function lengthsOf({ add, constant }) {
  constant('one', [1], INT64, int64([1]));
  constant('index.1', [], INT64, int64([1]));
  const count = add('ReduceSum', ['attention_mask', 'one'], ['mask.count'], { attributes: { keepdims: 0 } });
  const last = add('Sub', [count, 'one'], ['mask.last']);
  const total = add('Gather', [add('Shape', ['attention_mask'], ['mask.shape']), 'index.1'], ['mask.total']);
  const int32 = (name) => add('Cast', [name], [`${name}.int32`], { attributes: { to: INT32 } });
  return [int32(last), int32(total)];
}

/** Cosines and sines of all positions. */
function ropeTables({ source: { context, headSize, theta }, constant }) {
  for (const [name, of] of /** @type {const} */ ([
    ['cos', Math.cos],
    ['sin', Math.sin],
  ])) {
    const table = new Float32Array((context * headSize) / 2);
    for (let i = 0; i < table.length; i++) {
      const [position, pair] = [Math.floor(i / (headSize / 2)), i % (headSize / 2)];
      table[i] = of(position * theta ** ((-2 * pair) / headSize));
    }
    constant(name, [context, headSize / 2], FLOAT, Buffer.from(table.buffer));
  }
}

/** One layer: the sum of the residuals so far is normed, attended to, added; again with the feed-forward part. */
function layer(build, i, x, sum, lengths) {
  const { source, add } = build;
  const [name, at] = [`blk.${i}`, (part) => `blk.${i}.${part}`];
  const first = norm(build, at('attn_norm'), x, sum);
  const [q, k, v] = ['q', 'k', 'v'].map((part) => matmul(build, at(`attn_${part}`), first.out, at(part)));
  const past = ['key', 'value'].map((part) => `past_key_values.${i}.${part}`);
  const present = ['key', 'value'].map((part) => `present.${i}.${part}`);
  const attended = add(
    'GroupQueryAttention',
    [q, k, v, ...past, ...lengths, 'cos', 'sin'],
    [at('attended'), ...present],
    {
      domain: MICROSOFT,
      attributes: { num_heads: source.q, kv_num_heads: source.kv, do_rotary: 1, rotary_interleaved: 1 },
    },
  );
  const second = norm(build, at('ffn_norm'), matmul(build, at('attn_output'), attended, at('o')), first.sum);
  const gate = matmul(build, at('ffn_gate'), second.out, at('gate'));
  const up = matmul(build, at('ffn_up'), second.out, at('up'));
  const silu = add('Mul', [gate, add('Sigmoid', [gate], [at('sigmoid')])], [at('silu')]);
  const down = matmul(build, at('ffn_down'), add('Mul', [silu, up], [at('product')]), `${name}.down`);
  return [down, second.sum];
}

/** The norm of a residual and what is added to it (nothing at first), and their sum. */
function norm({ source, add, constant }, name, x, sum) {
  const weight = constant(`${name}.weight`, [source.d], FLOAT, source.tensor(name).bytes);
  const attributes = { epsilon: source.epsilon };
  if (x === '') {
    const out = add('SimplifiedLayerNormalization', [sum, weight], [`${name}.out`], { attributes });
    return { out, sum };
  }
  const outputs = [`${name}.out`, '', '', `${name}.sum`];
  add('SkipSimplifiedLayerNormalization', [x, sum, weight], outputs, { domain: MICROSOFT, attributes });
  return { out: outputs[0], sum: outputs[3] };
}

function lastRow({ add, constant }, x) {
  constant('index.-1', [1], INT64, int64([-1]));
  return add('Gather', [x, 'index.-1'], ['last'], { attributes: { axis: 1 } });
}

function matmul({ source, add, constant }, name, x, out) {
  const { shape, bytes } = source.tensor(name);
  const [K, N] = shape;
  const { nibbles, scales } = repacked(bytes);
  const inputs = [
    constant(`${name}.q4`, [N, K / BLOCK, BLOCK / 2], UINT8, nibbles),
    constant(`${name}.scales`, [(N * K) / BLOCK], FLOAT, scales),
  ];
  const attributes = { K, N, bits: 4, block_size: BLOCK, accuracy_level: ACCURACY };
  return add('MatMulNBits', [x, ...inputs], [out], { domain: MICROSOFT, attributes });
}

/** Q4_0 has values j and j + 16 of a block in a byte, ONNX 2 j and 2 j + 1; both have 8 for zero. */
export function repacked(bytes) {
  const blocks = bytes.length / BLOCK_BYTES;
  const [nibbles, scales] = [Buffer.alloc((blocks * BLOCK) / 2), new Float32Array(blocks)];
  for (let block = 0; block < blocks; block++) {
    const from = block * BLOCK_BYTES;
    scales[block] = fromFloat16(bytes.readUInt16LE(from));
    for (let j = 0; j < BLOCK / 2; j++) {
      nibbles[(block * BLOCK) / 2 + j] = nibble(bytes, from, 2 * j) | (nibble(bytes, from, 2 * j + 1) << 4);
    }
  }
  return { nibbles, scales: Buffer.from(scales.buffer) };
}

/** The values as float32. */
export function dequantized(bytes) {
  const values = new Float32Array((bytes.length / BLOCK_BYTES) * BLOCK);
  for (let i = 0; i < values.length; i++) {
    const from = Math.floor(i / BLOCK) * BLOCK_BYTES;
    values[i] = fromFloat16(bytes.readUInt16LE(from)) * (nibble(bytes, from, i % BLOCK) - 8);
  }
  return Buffer.from(values.buffer);
}

/** Value `j` of the block of Q4_0 that begins at `from`, in [0, 16). */
function nibble(bytes, from, j) {
  const byte = bytes[from + 2 + (j % (BLOCK / 2))];
  return j < BLOCK / 2 ? byte & 15 : byte >> 4;
}

function fromFloat16(bits) {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
}

function int64(values) {
  return Buffer.from(BigInt64Array.from(values.map(BigInt)).buffer);
}
