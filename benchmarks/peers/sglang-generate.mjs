/** `sglang generate` as a user types it: each generation is a process. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
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
export async function load(modelPath, { threads }) {
  const flags = ['--model-path', modelPath, '--threads', threads, '--temperature', 0].map(String);
  return { version, device: 'cpu', generate: (request) => generate(flags, request), close: async () => {} };
}

async function generate(flags, { maxTokens, onToken }) {
  const args = [cli, 'generate', ...flags, '--max-new-tokens', `${maxTokens}`, 'The capital of France is'];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'ignore'] });
  await once(child.stdout, 'data');
  for (let n = 0; n < maxTokens; n++) onToken();
  child.stdout.resume();
  const [code] = await once(child, 'close');
  if (code !== 0) throw new Error(`sglang generate ended with code ${code}`);
  return { cachedTokens: null, outputIds: Array(maxTokens).fill(0) };
}
