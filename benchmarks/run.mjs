/**
 * `npm run bench`: measures this engine beside its rivals. Law: in every round each peer runs once, one after the other
 * and never two at a time, so that a change in the machine's speed meets all of them.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { measureApart } from './cell.mjs';
import { comparison } from './comparison.mjs';
import { describeMachine } from './machine.mjs';
import { OURS, readOptions, usage } from './options.mjs';
import { install, peerModule } from './peers/peer.mjs';
import { saveRecord } from './record.mjs';
import { renderRecord } from './report.mjs';
import { figures } from './statistics.mjs';
import { workloads } from './workloads.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const cli = fileURLToPath(new URL('../ts/sglang/dist/cli.js', import.meta.url));
const UNLIKE = 'the engines counted different prompt tokens, so they did not do the same work';
const DEFAULT_MODEL = 'smollm2-135m-instruct';

/** Measures what the options ask for, prints the table and saves the record; true if nothing failed. */
async function bench(options) {
  if (!existsSync(cli)) throw new Error('the package is not built: run "npm run build" first');
  const peers = await Promise.all(options.peers.map(peerModule));
  peers.forEach(install);
  const modelPath = options.model ?? defaultModelPath();
  const record = newRecord(options, peers, modelPath);
  for (const id of options.workloads) {
    const size = { ...workloads[id].size, ...options.size };
    for (const streams of options.streams ?? workloads[id].streams) {
      const cell = { modelPath, threads: options.threads, workload: id, streams, size };
      const runs = await interleave(cell, options, record.failures);
      for (const { name } of peers) describeBuild(record.peers[name], runs[name]);
      const row = { workload: id, streams, ...size, ...comparison(runs, OURS) };
      if (row.promptTokens?.same === false) record.failures.push(`${id} at ${streams}: ${UNLIKE}`);
      record.rows.push(row);
    }
  }
  console.log(`\n${renderRecord(record)}\n\nrecord: ${saveRecord(record)}`);
  return record.failures.length === 0;
}

/** All that is known before the first run. */
function newRecord({ threads, rounds, trial }, peers, modelPath) {
  return {
    date: new Date().toISOString(),
    ...commit(),
    node: process.version,
    machine: describeMachine(),
    threads,
    model: { file: basename(modelPath), bytes: statSync(modelPath).size },
    rounds,
    trial,
    peers: Object.fromEntries(peers.map(({ name, notes }) => [name, { version: null, device: null, notes }])),
    rows: [],
    failures: [],
  };
}

/** A, B, A, B, …: runs of each peer by round; null, and a line in `failures`, for a run that failed. */
async function interleave(cell, { peers, rounds }, failures) {
  const runs = Object.fromEntries(peers.map((peer) => [peer, []]));
  for (let round = 1; round <= rounds; round++) {
    for (const peer of peers) {
      const place = `${cell.workload} at ${cell.streams}, round ${round} of ${rounds}, ${peer}`;
      const run = await measureApart({ ...cell, peer }).catch((error) => {
        failures.push(`${place}: ${error.message}`);
        return null;
      });
      runs[peer].push(run);
      console.log(run ? `${place}: ${figures(run).outTokensPerSecond.toFixed(1)} tok/s` : `FAILED ${failures.at(-1)}`);
    }
  }
  return runs;
}

function describeBuild(peer, runs) {
  const run = runs.find(Boolean);
  if (run) Object.assign(peer, { version: run.version, device: run.device });
}

/** The file of the default model, which is fetched if it is not in the cache. */
function defaultModelPath() {
  const pull = [cli, 'pull', DEFAULT_MODEL];
  return execFileSync(process.execPath, pull, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim();
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

try {
  const options = readOptions(process.argv.slice(2));
  if (options.help) console.log(usage);
  else if (!(await bench(options))) process.exitCode = 1;
} catch (error) {
  console.error(`bench: ${error.message}`);
  process.exitCode = 2;
}
