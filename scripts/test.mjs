/**
 * `npm test`: sets everything up and runs every check there is. All checks run even if one fails; the last line counts
 * them: a test of a runner counts one, and so does a linter, a format check or a type check.
 */
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { root, run, setUp, step } from './setup.mjs';

const checks = [
  ['Rust format', 'cargo', ['fmt', '--all', '--check']],
  [
    'Rust linter',
    'cargo',
    ['clippy', '--workspace', '--exclude', 'sglang-node', '--all-targets', '--', '-D', 'warnings'],
  ],
  ['Rust linter, addon', 'cargo', ['clippy', '-p', 'sglang-node', '--', '-D', 'warnings']],
  ['Rust tests', 'cargo', ['test', '--workspace', '--no-fail-fast'], cargoCounts],
  [
    'TypeScript format',
    'npx',
    [
      'prettier',
      '--check',
      '--cache',
      'ts/sglang/{src,test}/**/*.ts',
      'examples/**/*.ts',
      '{scripts,docs}/*.mjs',
      'docs/.vitepress/*.ts',
      'benchmarks/**/*.mjs',
    ],
  ],
  ['TypeScript linter', 'npm', ['run', '-s', 'lint', '-w', 'sglang']],
  ['types', 'npm', ['run', '-s', 'types', '-w', 'sglang']],
  [
    'types of the examples',
    'npx',
    ['tsc', '--noEmit', '--incremental', '--tsBuildInfoFile', 'examples/.tsbuildinfo', '-p', 'examples'],
  ],
  ['TypeScript tests', 'npm', ['test', '-w', 'sglang'], avaCounts],
  ['benchmark tests', 'node', ['--test', '--test-reporter=tap', ...benchmarkTests()], nodeCounts],
  ['documentation: reference, snippets, links', 'npm', ['run', '-s', 'build', '-w', 'sglang-docs']],
  ['packages, installed into an empty folder', 'node', ['scripts/check-package.mjs']],
];

/** Sums of cargo's `test result:` lines. */
function cargoCounts(output) {
  const results = [...output.matchAll(/^test result: \w+\. (\d+) passed; (\d+) failed/gm)];
  return sum(results.map(([, passed, failed]) => ({ passed: Number(passed), failed: Number(failed) })));
}

/** AVA's closing lines. */
function avaCounts(output) {
  const passed = Number(output.match(/(\d+) tests? passed/)?.[1] ?? 0);
  const failed = [...output.matchAll(/(\d+) (?:tests? failed|uncaught exceptions?|unhandled rejections?)/g)];
  return { passed, failed: failed.reduce((total, [, n]) => total + Number(n), 0) };
}

/** Node's test runner: its TAP summary. */
function nodeCounts(output) {
  const number = (name) => Number(output.match(new RegExp(`^# ${name} (\\d+)`, 'm'))?.[1] ?? 0);
  return { passed: number('pass'), failed: number('fail') };
}

function benchmarkTests() {
  const folder = 'benchmarks/test';
  return readdirSync(path.join(root, folder))
    .filter((file) => file.endsWith('.test.mjs'))
    .map((file) => `${folder}/${file}`);
}

function sum(counts) {
  return counts.reduce((a, b) => ({ passed: a.passed + b.passed, failed: a.failed + b.failed }), {
    passed: 0,
    failed: 0,
  });
}

/** Runs one check and counts it; a runner that fails without a failed test, or runs no test, counts as one failure. */
async function check([title, command, args, count]) {
  let output = '';
  let ok = true;
  await step(title, () =>
    run(command, args, { env: { FORCE_COLOR: '0' }, onOutput: (text) => (output += text) }),
  ).catch((error) => {
    console.error(`   ${error.message}`);
    ok = false;
  });
  if (!count) return ok ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 };
  const counts = count(output);
  const silent = counts.passed + counts.failed === 0;
  return { passed: counts.passed, failed: counts.failed + ((!ok && counts.failed === 0) || silent ? 1 : 0) };
}

try {
  await setUp();
} catch (error) {
  console.error(`\nset-up failed: ${error.message}\n0 passed, 1 failed`);
  process.exit(1);
}
const counts = [];
for (const entry of checks) counts.push(await check(entry));
const total = sum(counts);
console.log(`\n${total.passed} passed, ${total.failed} failed`);
process.exit(total.failed === 0 ? 0 : 1);
