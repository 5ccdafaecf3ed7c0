/**
 * `npm test`: sets everything up and runs every check there is. All checks run even if one fails; the last line counts
 * them: a test of a runner counts one, and so does a linter, a format check or a type check. Checks that keep about
 * one core busy run beside the tests, and are told afterwards.
 */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { root, run, setUp, step } from './setup.mjs';

const first = [
  ['Rust format', 'cargo', ['fmt', '--all', '--check']],
  [
    'Rust linter',
    'cargo',
    ['clippy', '--workspace', '--exclude', 'sglang-node', '--all-targets', '--', '-D', 'warnings'],
  ],
  ['Rust linter, addon', 'cargo', ['clippy', '-p', 'sglang-node', '--', '-D', 'warnings']],
];

const tests = [
  ['Rust tests', 'cargo', ['test', '--workspace', '--no-fail-fast'], cargoCounts],
  ['TypeScript tests', 'npm', ['test', '-w', 'sglang'], avaCounts],
  ['benchmark tests', 'node', ['--test', '--test-reporter=tap', ...benchmarkTests()], nodeCounts],
];

/** The kernels for AArch64: linted where rustup can add the target, parity where a linker and qemu are installed. */
function armChecks() {
  const target = 'aarch64-unknown-linux-gnu';
  const [linker, emulator] = ['aarch64-linux-gnu-gcc', 'qemu-aarch64'];
  if (!succeeds('rustup', ['target', 'add', target])) {
    console.log(`\n── not checked for AArch64: rustup cannot add the target ${target}`);
    return [];
  }
  const kernels = ['-p', 'sglang-kernels', '--target', target];
  const lint = ['Rust linter, AArch64', 'cargo', ['clippy', ...kernels, '--all-targets', '--', '-D', 'warnings']];
  if (!succeeds(linker, ['--version']) || !succeeds(emulator, ['--version'])) {
    console.log(`\n── not run for AArch64: ${linker} and ${emulator} are not installed`);
    return [lint];
  }
  const env = {
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER: linker,
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER: `${emulator} -cpu max -L /usr/aarch64-linux-gnu`,
  };
  return [lint, ['kernel parity, AArch64', 'cargo', ['test', ...kernels, '--test', 'parity'], cargoCounts, env]];
}

/** The kernels for AMX on a processor that lacks it: a library preloaded into the tests, which `cargo test` has built, does its work. */
function amxChecks() {
  if (process.platform !== 'linux' || process.arch !== 'x64') return [];
  const [, flags] = /^flags\s*: (.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'));
  const has = (flag) => flags.split(' ').includes(flag);
  if (has('amx_tile')) return [];
  if (!has('avx512_vnni') || !has('cpuid_fault')) {
    console.log('\n── not run for AMX: that takes a processor with it, or with AVX-512 VNNI and CPUID faulting');
    return [];
  }
  const library = path.join(root, 'target/debug/examples/libamx.so');
  const env = { CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER: `env LD_PRELOAD=${library}` };
  const args = ['test', '-p', 'sglang-kernels', '--test', 'parity', '--test', 'invariance'];
  return [['kernel parity and equal bits, AMX', 'cargo', args, cargoCounts, env]];
}

function succeeds(command, args) {
  try {
    execFileSync(command, args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

const beside = [
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
  ['documentation: reference, snippets, links', 'npm', ['run', '-s', 'build', '-w', 'sglang-docs']],
  ['packages, installed into an empty folder', 'node', ['scripts/check-package.mjs']],
];

/** Sums of cargo's `test result:` lines. */
function cargoCounts(output) {
  const results = [...output.matchAll(/^test result: \w+\. (\d+) passed; (\d+) failed/gm)];
  return sum(results.map(([, passed, failed]) => ({ passed: Number(passed), failed: Number(failed) })));
}

/** AVA's ticks, as it tells how many passed only where none failed, and its closing lines. */
function avaCounts(output) {
  const passed = output.match(/^ *✔ (?!\[expected fail\])/gm)?.length ?? 0;
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
async function check([title, command, args, count, env], show) {
  let output = '';
  let ok = true;
  const onOutput = (text) => {
    output += text;
    show?.(text);
  };
  await run(command, args, { env: { FORCE_COLOR: '0', ...env }, onOutput }).catch((error) => {
    onOutput(`   ${error.message}\n`);
    ok = false;
  });
  return { title, output, ...counted(ok, count?.(output)) };
}

function counted(ok, counts) {
  if (!counts) return ok ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 };
  const isSilent = counts.passed + counts.failed === 0;
  return { passed: counts.passed, failed: counts.failed + ((!ok && counts.failed === 0) || isSilent ? 1 : 0) };
}

/** Runs checks one after the other, each shown as it runs. */
async function shown(checks) {
  const results = [];
  for (const entry of checks) {
    await step(entry[0], async () => results.push(await check(entry, (text) => process.stdout.write(text))));
  }
  return results;
}

/** Runs checks one after the other, without a word. */
async function silent(checks) {
  const results = [];
  for (const entry of checks) results.push(await check(entry));
  return results;
}

try {
  await setUp();
} catch (error) {
  console.error(`\nset-up failed: ${error.message}\n0 passed, 1 failed`);
  process.exit(1);
}
const results = await shown(first);
const held = silent(beside);
results.push(...(await shown([...tests, ...amxChecks(), ...armChecks()])));
for (const result of await held) {
  console.log(`\n── ${result.title}\n${result.output.trimEnd()}`);
  results.push(result);
}
const total = sum(results);
console.log(`\n${total.passed} passed, ${total.failed} failed`);
process.exit(total.failed === 0 ? 0 : 1);
