/**
 * What a fresh clone needs before anything runs: npm packages, the addon, the built TypeScript, the default model.
 * Each step says what it does and how long it took, and does nothing when nothing changed.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync, mkdirSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import path from 'node:path';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
export const defaultModel = 'smollm2-135m-instruct';

/** The name of this platform in the names of packages and addons. */
export function platformName() {
  const libc = process.report.getReport().header.glibcVersionRuntime === undefined ? 'musl' : 'gnu';
  const suffix = { linux: `-${libc}`, win32: '-msvc' }[process.platform] ?? '';
  return `${process.platform}-${process.arch}${suffix}`;
}

/** Runs a command in `cwd` with its output shown; rejects if it fails. */
export function run(command, args, { cwd = root, env = {}, onOutput } = {}) {
  return new Promise((resolve, reject) => {
    const stdio = onOutput ? ['ignore', 'pipe', 'pipe'] : ['ignore', 'inherit', 'inherit'];
    const child = spawn(command, args, { cwd, stdio, env: { ...process.env, ...env } });
    for (const stream of onOutput ? [child.stdout, child.stderr] : []) {
      stream.on('data', (chunk) => {
        process.stdout.write(chunk);
        onOutput(chunk.toString());
      });
    }
    child.on('error', (error) => reject(new Error(`${command} could not be started: ${error.message}`)));
    child.on('close', (code) => {
      if (code === 0) resolve();
      else reject(new Error(`"${[command, ...args].join(' ')}" failed with exit code ${code}`));
    });
  });
}

/** Announces a step, runs it, and says how long it took. */
export async function step(title, body) {
  console.log(`\n── ${title}`);
  const start = performance.now();
  await body();
  console.log(`   done in ${((performance.now() - start) / 1000).toFixed(1)} s`);
}

function hashOf(file) {
  return createHash('sha256')
    .update(readFileSync(path.join(root, file)))
    .digest('hex');
}

/** Installs npm packages when the lock file is not the one that was installed last. */
async function installPackages() {
  const stamp = path.join(root, 'node_modules', '.installed-lock');
  const wanted = hashOf('package-lock.json');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return console.log('   up to date');
  await run('npm', ['ci', '--no-audit', '--no-fund']);
  mkdirSync(path.dirname(stamp), { recursive: true });
  writeFileSync(stamp, wanted);
}

/** Everything up to the model; cargo and tsdown find out themselves what is up to date. */
export async function setUp() {
  await step('npm packages', installPackages);
  await step('the addon (Rust, release build; the first one takes some minutes)', () =>
    run('npm', ['run', '-s', 'build:native']),
  );
  await step('the TypeScript package', () => run('npm', ['run', '-s', 'build:ts']));
  await step(`the default model, ${defaultModel} (98 MB)`, () =>
    run('node', ['ts/sglang/dist/cli.js', 'pull', defaultModel]),
  );
}
