/**
 * What a fresh clone needs before anything runs: npm packages, the addon, the built TypeScript, the default model.
 * Each step says what it does and how long it took, and does nothing when nothing changed.
 */
import { execFileSync, spawn } from 'node:child_process';
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

/** Runs a command in `cwd` with its output shown, or given to `onOutput`; rejects if it fails. */
export function run(command, args, { cwd = root, env = {}, onOutput } = {}) {
  return new Promise((resolve, reject) => {
    const stdio = onOutput ? ['ignore', 'pipe', 'pipe'] : ['ignore', 'inherit', 'inherit'];
    const child = spawn(command, args, { cwd, stdio, env: { ...process.env, ...env } });
    for (const stream of onOutput ? [child.stdout, child.stderr] : []) {
      stream.on('data', (chunk) => onOutput(chunk.toString()));
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

/** Runs `body` unless the files at these paths (in git, as they are now) have not changed since it last succeeded. */
async function whenChanged(stampFile, paths, output, body) {
  const stamp = path.join(root, stampFile);
  const wanted = hashOf(paths);
  const isDone = existsSync(path.join(root, output)) && existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted;
  if (isDone) return console.log('   up to date');
  await body();
  mkdirSync(path.dirname(stamp), { recursive: true });
  writeFileSync(stamp, wanted);
}

function hashOf(paths) {
  const hash = createHash('sha256');
  for (const file of paths.flatMap(filesAt)) {
    hash.update(file).update(readFileSync(path.join(root, file)));
  }
  return hash.digest('hex');
}

/** Files of a pathspec; one that matches nothing would let all changes pass. */
function filesAt(pathspec) {
  const list = ['ls-files', '-z', '--cached', '--others', '--exclude-standard', '--', pathspec];
  const files = execFileSync('git', list, { cwd: root, encoding: 'utf8' }).split('\0');
  const present = files.filter((name) => name && existsSync(path.join(root, name)));
  if (present.length === 0) throw new Error(`${pathspec}: no such files`);
  return present;
}

const rustSources = ['Cargo.toml', 'Cargo.lock', 'crates/*/src/*', 'crates/*/Cargo.toml', 'bindings-node'];

/** The addon; `npm run build:native` builds it in any case. */
export function buildAddon() {
  const addon = `bindings-node/sglang.${platformName()}.node`;
  return whenChanged('target/.addon-sources', rustSources, addon, () => run('npm', ['run', '-s', 'build:native']));
}

const typeScriptSources = ['package-lock.json', 'ts/sglang/src', 'ts/sglang/package.json', 'ts/sglang/ts*'];

/** The TypeScript package; `npm run build:ts` builds it in any case. */
export function buildTypeScript() {
  return whenChanged('target/.dist-sources', typeScriptSources, 'ts/sglang/dist/cli.js', () =>
    run('npm', ['run', '-s', 'build:ts']),
  );
}

function installPackages() {
  return whenChanged('node_modules/.installed-lock', ['package-lock.json'], 'node_modules', () =>
    run('npm', ['ci', '--no-audit', '--no-fund']),
  );
}

/** Everything up to the model. */
export async function setUp() {
  await step('npm packages', installPackages);
  await step('the addon (Rust, release build; the first one takes some minutes)', buildAddon);
  await step('the TypeScript package', buildTypeScript);
  await step(`the default model, ${defaultModel} (98 MB)`, () =>
    run('node', ['ts/sglang/dist/cli.js', 'pull', defaultModel]),
  );
}
