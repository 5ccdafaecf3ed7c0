/**
 * Not an engine: what this machine could do at most, by its speed in the same round. Prefill is bound by int8 products
 * (attention by float32), decoding by reading weights, keys and values.
 */
import { fileURLToPath } from 'node:url';
import { modelSize } from '../model-size.mjs';
import { collect, setUpWith } from '../programs.mjs';

const cwd = fileURLToPath(new URL('../..', import.meta.url));
/** The best level, and none of the parts that come after the roof. */
const ROOF_ONLY = ['best', 'roof'];
const bench = ['bench', '--quiet', '-p', 'sglang-kernels', '--bench', 'ops'];

export const name = 'roof';
export const notes = [
  'The speed of the machine is measured by the bench of the kernels in a process of its own.',
  'Prefill: operations of the layers at the speed of int8 products, of attention at that of float32, one head. Decoding: bytes of weights and of half-precision keys and values at the speed of reading.',
];
export const install = () => setUpWith('building the bench of the kernels', 'cargo', [...bench, '--no-run'], { cwd });

/**
 * @param {string} modelPath
 * @param {{ threads: number, size: import('../workloads.mjs').Size, rate: string }} options
 * @returns {Promise<import('./peer.mjs').Measured>}
 */
export async function measure(modelPath, { threads, size, rate }) {
  if (!roofs[rate]) throw new Error('there is a roof for prefill and decoding only');
  const line = await collect('cargo', [...bench, '--', `${threads}`, ...ROOF_ONLY], { cwd });
  const speeds = parseRoof(line);
  return { version: '', device: line.trim(), tokensPerSecond: roofs[rate](modelSize(modelPath), speeds, size) };
}

/** The speeds in a line of the bench, in bytes or operations per second. */
export function parseRoof(line) {
  const number = (pattern) => 1e9 * Number(pattern.exec(line)?.[1] ?? NaN);
  return { read: number(/reads ([\d.]+) GB/), int8: number(/int8 ([\d.]+) GOP/), f32: number(/f32 ([\d.]+) GFLOP/) };
}

/** Tokens per second at most. */
export const roofs = {
  prefill(model, { int8, f32 }, { prompt }) {
    const attention = model.attentionOperations((prompt * (prompt + 1)) / 2) / f32;
    return prompt / ((prompt * model.layerOperations + model.headOperations) / int8 + attention);
  },
  decode(model, { read }, { prompt, tokens }) {
    return read / (model.bytesPerStep + (prompt + tokens / 2) * model.kvBytesPerToken);
  },
};
