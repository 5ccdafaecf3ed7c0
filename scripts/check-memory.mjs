/**
 * `node scripts/check-memory.mjs`: kernels against their references, and short generations, under valgrind. It hides
 * AVX-512 from them, so that the scalar and AVX2 levels run. Not part of `npm test`: it takes minutes, and valgrind has to
 * be installed.
 */
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { root, step } from './setup.mjs';

/** Crate, test file and filter. */
const runs = [
  ['sglang-kernels', 'parity', ''],
  ['sglang-kernels', 'sampling', ''],
  ['sglang-kernels', 'refusals', ''],
  ['sglang-engine', 'golden', 'tiny_checkpoints_match'],
];

/** The test program, built. */
function build(crate, test) {
  const args = ['test', '-q', '-p', crate, '--test', test, '--no-run', '--message-format=json'];
  const lines = execFileSync('cargo', args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 })
    .trim()
    .split('\n');
  const built = lines.map((line) => JSON.parse(line)).filter((message) => message.executable);
  return built.find((message) => message.target.name === test).executable;
}

let failed = 0;
for (const [crate, test, filter] of runs) {
  try {
    await step(`valgrind: ${crate} ${test} ${filter}`, async () => {
      const args = [
        '--quiet',
        '--error-exitcode=9',
        build(crate, test),
        '--test-threads=1',
        ...(filter ? [filter] : []),
      ];
      execFileSync('valgrind', args, {
        cwd: path.join(root, 'crates', crate.replace('sglang-', '')),
        stdio: 'inherit',
      });
    });
  } catch (error) {
    console.error(`   ${error.message}`);
    failed += 1;
  }
}
console.log(`${runs.length - failed} passed, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
