/** `sglang generate` as a user types it: each generation is a process. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { peakRssMiB } from '../machine.mjs';
import { version } from './sglang.mjs';

const cli = fileURLToPath(new URL('../../ts/sglang/dist/cli.js', import.meta.url));

export const name = 'sglang-generate';
export const notes = [
  'The time of the first token is that of the first text on standard output; tokens after it are not timed.',
];
export const install = async () => {};

/**
 * @param {string} modelPath
 * @param {import('./peer.mjs').LoadOptions} options
 * @returns {Promise<import('./peer.mjs').Peer>}
 */
export async function load(modelPath, { threads, cacheTokens }) {
  const sizes = ['--threads', threads, '--max-total-tokens', cacheTokens, '--temperature', 0].map(String);
  const flags = ['--model-path', modelPath, ...sizes];
  let peak = null;
  return {
    version,
    device: 'cpu',
    isColdUntilAsked: true,
    peakRssMiB: () => peak,
    generate: (request) => generate(flags, request, (pid) => (peak = peakRssMiB(pid))),
    close: async () => {},
  };
}

/** @param {(pid: number | undefined) => void} look  called while the process has all that it will hold */
async function generate(flags, { maxTokens, onToken }, look) {
  const args = [cli, 'generate', ...flags, '--max-new-tokens', `${maxTokens}`, 'The capital of France is'];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'ignore'] });
  await once(child.stdout, 'data');
  for (let n = 0; n < maxTokens; n++) onToken();
  child.stdout.on('data', () => look(child.pid));
  look(child.pid);
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`sglang generate ended with code ${code}`);
  return { cachedTokens: null, outputIds: Array(maxTokens).fill(0) };
}
