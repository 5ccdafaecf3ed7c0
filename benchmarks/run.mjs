/**
 * `npm run bench`: measures this engine beside its rivals. Law: in every round each contestant runs once, one after the
 * other and never two at a time, so that a change in the machine's speed meets all of them.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { measureApart } from './cell.mjs';
import { comparison } from './comparison.mjs';
import { benchKernels } from './kernels.mjs';
import { benchLanguage } from './language.mjs';
import { describeMachine } from './machine.mjs';
import { defaultModel, modelFile } from './models.mjs';
import { readOptions, usage } from './options.mjs';
import { peerModule, peerNames } from './peers/peer.mjs';
import { recordFile, saveRecord } from './record.mjs';
import { renderRecord } from './report.mjs';
import { workloads } from './workloads.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const cli = fileURLToPath(new URL('../ts/sglang/dist/cli.js', import.meta.url));

/** Measures what the options ask for, prints the table and saves the record; true if nothing failed. */
async function bench(options) {
  if (!existsSync(cli)) throw new Error('the package is not built: run "npm run build" first');
  const base = options.model ?? defaultModel();
  const fields = (id) => (options.peers ? [options.peers] : workloads[id].fields);
  const contestants = await prepare(base, new Set(options.workloads.flatMap(fields).flat()));
  const record = newRecord(options, contestants, base);
  const file = recordFile(record);
  for (const id of options.workloads) {
    const size = workloads[id][options.quick ? 'quick' : 'size'];
    for (const streams of options.streams ?? workloads[id].streams) {
      const cell = { vocabularyPath: base, threads: options.threads, workload: id, streams, size };
      for (const field of fields(id)) {
        const runs = await interleave(cell, pick(contestants, field), options.rounds, record.failures);
        for (const name of field) describeBuild(record.peers[name], runs[name]);
        record.rows.push({ workload: id, streams, ...size, ...comparison(runs, field[0]) });
        saveRecord(file, record);
      }
    }
  }
  console.log(`\n${renderRecord(record)}\n\nrecord: ${file}`);
  return record.failures.length === 0;
}

/**
 * Gets what is missing of `peer` or `peer@format`.
 * @param {string} base            the model in its own format
 * @param {Iterable<string>} names
 */
async function prepare(base, names) {
  const contestants = {};
  for (const name of names) {
    const [peer, format] = name.split('@');
    const module = await peerModule(peer);
    await module.install();
    contestants[name] = { peer, notes: module.notes, modelPath: await modelFile(base, format) };
  }
  return contestants;
}

function pick(contestants, names) {
  return Object.fromEntries(names.map((name) => [name, contestants[name]]));
}

/** All that is known before the first run. */
function newRecord({ threads, rounds, trial }, contestants, modelPath) {
  const described = ([name, { notes, modelPath: file }]) => [
    name,
    { version: null, device: null, file: basename(file), notes },
  ];
  return {
    date: new Date().toISOString(),
    ...commit(),
    node: process.version,
    machine: describeMachine(),
    threads,
    model: { file: basename(modelPath), bytes: statSync(modelPath).size },
    rounds,
    trial,
    peers: Object.fromEntries(Object.entries(contestants).map(described)),
    rows: [],
    failures: [],
  };
}

/**
 * A, B, A, B, …: runs of each contestant by round; null, and a line in `failures`, for a run that failed. What failed once
 * is not tried again.
 */
async function interleave(cell, contestants, rounds, failures) {
  const runs = Object.fromEntries(Object.keys(contestants).map((name) => [name, []]));
  for (let round = 1; round <= rounds; round++) {
    for (const [name, { peer, modelPath }] of Object.entries(contestants)) {
      if (runs[name].includes(null)) continue;
      const place = `${cell.workload} at ${cell.streams}, round ${round} of ${rounds}, ${name}`;
      const run = await measureApart({ ...cell, peer, modelPath }).catch((error) => {
        failures.push(`${place}: ${error.message}`);
        return null;
      });
      runs[name].push(run);
      console.log(run ? `${place}: ${run.tokensPerSecond.toFixed(1)} tok/s` : `FAILED ${failures.at(-1)}`);
    }
  }
  return runs;
}

function describeBuild(peer, runs) {
  const run = runs.find(Boolean);
  if (run) Object.assign(peer, { version: run.version, device: run.device });
}

/** Which code this is; `modified` if it is not exactly the commit's. Nulls outside of a git checkout. */
function commit() {
  const git = (...args) => execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: 'pipe' }).trim();
  try {
    return { commit: git('rev-parse', 'HEAD'), modified: git('status', '--porcelain') !== '' };
  } catch {
    return { commit: null, modified: null };
  }
}

async function installAll() {
  for (const name of peerNames()) await (await peerModule(name)).install();
  console.log('every peer is there');
}

/** @param {string[]} args */
async function main([first, ...rest]) {
  if (first === 'peers') return installAll();
  if (first === 'kernels') return benchKernels(rest);
  if (first === 'language') return benchLanguage();
  const options = readOptions(first === undefined ? [] : [first, ...rest]);
  if (options.help) console.log(usage);
  else if (!(await bench(options))) process.exitCode = 1;
}

await main(process.argv.slice(2)).catch((error) => {
  console.error(`bench: ${error.message}`);
  process.exitCode = 2;
});
