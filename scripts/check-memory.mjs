/**
 * Kernels against their references, and short generations, where every access to memory is checked. Not part of
 * `npm test`: it takes minutes.
 *
 * `node scripts/check-memory.mjs`: under valgrind, which has to be installed. It sees what every library does, also reads of
 * what was never written. It hides AVX-512, so that the scalar and AVX2 levels run.
 *
 * `node scripts/check-memory.mjs asan`: built with AddressSanitizer, which comes with rustc. It sees what Rust compiled only,
 * at every level that the machine has.
 */
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { root, run, step } from './setup.mjs';

/** Of each mode: how it runs tests, and crate, test file (or all of the crate's) and filter of those that it runs. */
const modes = {
  valgrind: {
    check: underValgrind,
    tests: [
      ['sglang-kernels', 'parity', ''],
      ['sglang-kernels', 'sampling', ''],
      ['sglang-kernels', 'refusals', ''],
      ['sglang-engine', 'golden', 'tiny_checkpoints_match'],
    ],
  },
  asan: {
    check: withAddressSanitizer,
    tests: [
      ['sglang-kernels', '', ''],
      ['sglang-radix', '', ''],
    ],
  },
};

function underValgrind(crate, test, filter) {
  const args = ['--quiet', '--error-exitcode=9', build(crate, test), '--test-threads=1', ...(filter ? [filter] : [])];
  return run('valgrind', args, { cwd: path.join(root, 'crates', crate.replace('sglang-', '')) });
}

/** The test program, built. */
function build(crate, test) {
  const args = ['test', '-q', '-p', crate, '--test', test, '--no-run', '--message-format=json'];
  const lines = execFileSync('cargo', args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 })
    .trim()
    .split('\n');
  const built = lines.map((line) => JSON.parse(line)).filter((message) => message.executable);
  return built.find((message) => message.target.name === test).executable;
}

/** Naming the target keeps the flags from build scripts and macros, which run in the compiler. */
function withAddressSanitizer(crate, test, filter) {
  const host = /^host: (.*)$/m.exec(execFileSync('rustc', ['-vV'], { encoding: 'utf8' }))[1];
  const which = test ? ['--test', test] : ['--lib', '--tests'];
  const args = ['test', '-q', '--target', host, '-p', crate, ...which, ...(filter ? ['--', filter] : [])];
  return run('cargo', args, { env: { RUSTC_BOOTSTRAP: '1', RUSTFLAGS: '-Zsanitizer=address' } });
}

const mode = process.argv[2] ?? 'valgrind';
if (!(mode in modes)) throw new Error(`no mode is called "${mode}"; there are ${Object.keys(modes).join(', ')}`);
const { check, tests } = modes[mode];
let failed = 0;
for (const [crate, test, filter] of tests) {
  try {
    await step(`${mode}: ${crate} ${test} ${filter}`, () => check(crate, test, filter));
  } catch (error) {
    console.error(`   ${error.message}`);
    failed += 1;
  }
}
console.log(`${tests.length - failed} passed, ${failed} failed`);
process.exitCode = failed ? 1 : 0;
