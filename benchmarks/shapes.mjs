/**
 * Larger shapes: models of random weights are made, loaded and run, each in a process of its own, beside what the default
 * model reaches of the same machine's roof.
 *
 *     node benchmarks/shapes.mjs [--threads N] [--keep] [shape …]
 *
 * Shapes are those of random-model.mjs; without any, all but the 1.1 B one. A file is removed after its turn unless it is
 * to be kept. What is printed goes to the records as well.
 */
import { fork } from 'node:child_process';
import { once as event } from 'node:events';
import { mkdirSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { inCache, once } from './cache.mjs';
import { describeMachine, peakRssMiB, watchCpu } from './machine.mjs';
import { defaultModel } from './models.mjs';
import { measure as roofOf, parseRoof } from './peers/roof.mjs';
import { shapes, writeRandomModel } from './random-model.mjs';
import { saveText } from './record.mjs';
import { mean, median } from './statistics.mjs';

const MIB = 2 ** 20;
const size = { prompt: 64, tokens: 32 };
const ROUNDS = 3;
const CACHE_TOKENS = 512;

/**
 * Loads a model and decodes; what it cost.
 * @param {string} modelPath
 * @param {{ threads?: number }} options
 */
export async function measureShape(modelPath, { threads } = {}) {
  const { Engine } = await import('../ts/sglang/dist/index.js');
  const reports = [];
  const onProgress = ({ doneBytes, totalBytes }) => reports.push(doneBytes / totalBytes);
  const start = performance.now();
  const engine = await Engine.create({ modelPath, threads, maxTotalTokens: CACHE_TOKENS, onProgress });
  const loadSeconds = (performance.now() - start) / 1000;
  const rates = [];
  for (let round = 0; round < ROUNDS; round++) rates.push(await decode(engine, round));
  const { device } = engine.model;
  await engine.close();
  const rises = reports.every((share, i) => share <= 1 && share >= (reports[i - 1] ?? 0));
  return {
    device,
    loadSeconds,
    progress: rises ? reports.length : 0,
    peakRssMiB: peakRssMiB(process.pid),
    tokensPerSecond: median(rates),
  };
}

/** Tokens per second after the first one. */
async function decode(engine, round) {
  const inputIds = Array.from({ length: size.prompt }, (_, i) => 100 + 7 * i + round);
  const samplingParams = { maxNewTokens: size.tokens, temperature: 0, ignoreEos: true };
  let [first, tokens] = [0, 0];
  for await (const { outputIds } of engine.generate({ inputIds, samplingParams })) {
    if (tokens === 0) first = performance.now();
    tokens += outputIds.length;
  }
  return ((tokens - 1) / (performance.now() - first)) * 1000;
}

/** The same in a process of its own, so that its memory is its own. */
async function measureApart(modelPath, options) {
  const child = fork(fileURLToPath(import.meta.url), {
    env: { ...process.env, MEASURE: JSON.stringify([modelPath, options]) },
  });
  const ended = event(child, 'exit');
  const [measured] = await Promise.race([event(child, 'message'), ended]);
  await ended;
  if (typeof measured !== 'object') throw new Error(`measuring ${modelPath} ended with code ${measured}`);
  return measured;
}

async function main() {
  const { values, positionals } = parseArgs({
    options: { threads: { type: 'string' }, keep: { type: 'boolean' } },
    allowPositionals: true,
  });
  const threads = Number(values.threads ?? describeMachine().cores);
  const names = positionals.length > 0 ? positionals : Object.keys(shapes).filter((name) => !name.endsWith('f16'));
  const unknown = names.find((name) => !shapes[name]);
  if (unknown) throw new Error(`there is no shape ${unknown}; there are ${Object.keys(shapes).join(', ')}`);
  const base = defaultModel();
  const machine = describeMachine();
  const lines = [`${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB; ${threads} threads`];
  const tell = (line) => (console.log(line), lines.push(line));
  tell(await line('the default model', base, threads));
  mkdirSync(inCache('models'), { recursive: true });
  for (const name of names) {
    const file = await once(inCache('models', `random-${name}.gguf`), (unfinished) => {
      console.log(`── writing ${name}`);
      writeRandomModel(unfinished, shapes[name], base);
    });
    tell(await line(name, file, threads));
    if (!values.keep) rmSync(file);
  }
  console.log(
    `kept in ${path.relative('.', saveText(machine, new Date().toISOString(), `${lines.join('\n')}\n`, 'shapes'))}`,
  );
}

async function line(name, file, threads) {
  const roof = () => roofOf(file, { threads, size, rate: 'decode' });
  const before = await roof();
  const watch = watchCpu();
  const measured = await measureApart(file, { threads });
  const others = watch.shareOfOthers();
  // The speed of a shared machine's memory changes within a minute.
  const roofs = [before, await roof()];
  const shares = roofs.map(({ tokensPerSecond }) => (100 * measured.tokensPerSecond) / tokensPerSecond);
  const reads = roofs.map(({ device }) => (parseRoof(device).read / 1e9).toFixed(0));
  return [
    `${name}: file ${Math.round(statSync(file).size / MIB)} MiB, peak RSS ${Math.round(measured.peakRssMiB)} MiB`,
    `loaded in ${measured.loadSeconds.toFixed(1)} s with ${measured.progress} reports of progress`,
    `${measured.tokensPerSecond.toPrecision(3)} tok/s, ${mean(shares).toFixed(0)} % of the roof (reads of ${reads.join(' and ')} GB/s before and after)`,
    `${measured.device}; others had ${others === null ? '?' : (100 * others).toFixed(0)} % of the processor`,
  ].join('; ');
}

if (process.env.MEASURE && process.send) {
  process.send(await measureShape(...JSON.parse(process.env.MEASURE)));
  process.disconnect();
} else if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main();
}
