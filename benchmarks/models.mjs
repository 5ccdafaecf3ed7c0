/**
 * The files that are measured: the default model (or the one of `--model`), the same weights in other formats, and a
 * larger model of random weights. All but the first are made by llama.cpp's own quantizer and kept in the cache.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { inCache, once } from './cache.mjs';
import { buildLlamaCpp, llamaProgram } from './llama-cpp.mjs';
import { writeOnnxModel } from './onnx-model.mjs';
import { setUpWith } from './programs.mjs';
import { shapes, writeRandomModel } from './random-model.mjs';

const cli = fileURLToPath(new URL('../ts/sglang/dist/cli.js', import.meta.url));
const DEFAULT_MODEL = 'smollm2-135m-instruct';
const LARGE = 'large-';

/** Formats that a model can be wanted in. */
export const formats = ['q4_0', 'q4_1', 'q8_0', 'f16', 'bf16', 'large-q4_k_m', 'large-q8_0', 'onnx'];

/** The file of the default model, which is fetched if it is not in the cache. */
export function defaultModel() {
  const pull = [cli, 'pull', DEFAULT_MODEL];
  return execFileSync(process.execPath, pull, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim();
}

/**
 * @param {string} base                 the model itself
 * @param {string | undefined} format   one of `formats`, or none for the file as it is
 * @returns {Promise<string>} the path of the file, which is made if it is not there
 */
export async function modelFile(base, format) {
  if (format === undefined) return base;
  const name = path.basename(base, '.gguf');
  mkdirSync(inCache('models'), { recursive: true });
  if (format === 'onnx') {
    const q4 = await quantize(base, `${name}.all`, 'q4_0', 'q4_0');
    return once(inCache('models', `${name}.onnx`), (folder) => writeOnnxModel(folder, q4));
  }
  if (!format.startsWith(LARGE)) return quantize(base, name, format);
  const large = await once(inCache('models', 'random-1.1b.f16.gguf'), (file) => {
    console.log('── writing a Llama of 1.1 B random weights (2.2 GB)');
    writeRandomModel(file, shapes['llama-1.1b-f16'], base);
  });
  return quantize(large, 'random-1.1b', format.slice(LARGE.length));
}

/**
 * Weights of any format to another, by way of float32. The embedding, which is the default model's head too, keeps that
 * model's 8 bits, so that files differ in their layers only.
 */
async function quantize(from, name, format, embedding = format.startsWith('q') ? 'q8_0' : format) {
  await buildLlamaCpp();
  const flags = ['--allow-requantize', '--token-embedding-type', embedding];
  return once(inCache('models', `${name}.${format}.gguf`), (file) =>
    setUpWith(`${name} in ${format}`, llamaProgram('llama-quantize'), [...flags, from, file, format.toUpperCase()]),
  );
}
