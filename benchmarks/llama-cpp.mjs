/**
 * llama.cpp, built on this machine for this machine from the source inside the Python package `llama-cpp-python`: the
 * rival's best binary. What was built before an interruption is not built again.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { inCache, once } from './cache.mjs';
import { setUpWith } from './programs.mjs';

export const version = '0.3.36';
const source = inCache(`llama.cpp-${version}`);
const build = path.join(source, 'build');
const programs = ['llama-quantize', 'llama-bench', 'llama-batched-bench', 'llama-server'];
const flags = {
  CMAKE_BUILD_TYPE: 'Release',
  GGML_NATIVE: 'ON',
  BUILD_SHARED_LIBS: 'OFF',
  LLAMA_OPENSSL: 'OFF',
  LLAMA_USE_PREBUILT_UI: 'OFF',
  LLAMA_BUILD_TESTS: 'OFF',
  LLAMA_BUILD_EXAMPLES: 'OFF',
  LLAMA_BUILD_APP: 'OFF',
};

/** Path of a program of llama.cpp, which has to be built. */
export function llamaProgram(name) {
  const file = path.join(build, 'bin', name);
  if (!existsSync(file)) throw new Error(`${name} is not built: run "npm run bench -- peers" first`);
  return file;
}

/** Downloads and builds what is missing; from nothing it takes about half an hour on two cores. */
export async function buildLlamaCpp() {
  if (programs.every((name) => existsSync(path.join(build, 'bin', name)))) return;
  await once(source, unpack);
  const settings = Object.entries(flags).map(([name, value]) => `-D${name}=${value}`);
  await setUpWith('llama.cpp: configuring', 'cmake', ['-S', source, '-B', build, ...settings]);
  for (const [i, name] of programs.entries()) {
    const title = `llama.cpp: building ${name} (${i + 1} of ${programs.length})`;
    await setUpWith(title, 'cmake', ['--build', build, '--target', name, '--parallel', `${os.availableParallelism()}`]);
  }
}

async function unpack(folder) {
  const name = `llama_cpp_python-${version}`;
  const archive = path.join(`${folder}.sdist`, `${name}.tar.gz`);
  const from = ['--no-deps', '--no-binary', 'llama-cpp-python', '--dest', path.dirname(archive)];
  await setUpWith(`llama-cpp-python ${version}: downloading its source (77 MB)`, 'pip', [
    'download',
    ...from,
    `llama-cpp-python==${version}`,
  ]);
  mkdirSync(folder, { recursive: true });
  const inside = ['--strip-components=3', `${name}/vendor/llama.cpp`];
  await setUpWith('llama.cpp: unpacking', 'tar', ['-xzf', archive, '-C', folder, ...inside]);
  rmSync(path.dirname(archive), { recursive: true });
  keepTileShapes(path.join(folder, 'ggml/src/ggml-cpu/amx/mmq.cpp'));
}

/**
 * GCC 12 believes that loading the shapes of AMX's tiles reads eight bytes and leaves the others unwritten; then the first
 * product by AMX is an illegal instruction, and the rival cannot be measured.
 */
function keepTileShapes(file) {
  const load = '_tile_loadconfig(&tc);';
  const source = readFileSync(file, 'utf8');
  if (!source.includes(load)) throw new Error(`${file} has no ${load}`);
  writeFileSync(file, source.replace(load, `__asm__ volatile("" ::: "memory"); ${load}`));
}
