/** `npm run bench -- kernels`: the bench of the Rust kernels, kept as the text it prints. */
import os from 'node:os';
import { fileURLToPath } from 'node:url';
import { describeMachine } from './machine.mjs';
import { collect } from './programs.mjs';
import { saveText } from './record.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));

/** @param {string[]} args  number of threads (default: all cores), and a SIMD level (default: the best) */
export async function benchKernels([threads = `${os.availableParallelism()}`, ...level]) {
  const args = ['bench', '--quiet', '-p', 'sglang-kernels', '--bench', 'ops', '--', threads, ...level];
  const text = await collect('cargo', args, { cwd: root, watch: true });
  console.log(`\nrecord: ${saveText(describeMachine(), new Date().toISOString(), text)}`);
}
