/** The process of one measurement: reads a cell from its argument, sends `{ run }` or `{ error }` to its parent, ends; with its parent too. */
import { statSync } from 'node:fs';
import { peakRssMiB, watchCpu } from './machine.mjs';
import { modelSize } from './model-size.mjs';
import { oracleHitRate } from './oracle.mjs';
import { peerModule } from './peers/peer.mjs';
import { serve } from './sessions.mjs';
import { rates } from './statistics.mjs';
import { encoder } from './vocabulary.mjs';
import { CACHE_TOKENS, workloads } from './workloads.mjs';

const MIB = 2 ** 20;
/** Touches pages and starts threads, with a prompt that shares no prefix with any that is timed. */
const WARM_UP = { prompt: Array.from({ length: 16 }, (_, i) => 900 - i), maxTokens: 4 };

/**
 * @param {import('./cell.mjs').Cell} cell
 * @returns {Promise<import('./cell.mjs').Run>}
 */
async function measure(cell) {
  const module = await peerModule(cell.peer);
  const workload = workloads[cell.workload];
  return module.measure ? byItself(module, cell, workload) : bySessions(module, cell, workload);
}

/**
 * A peer that is a program with a benchmark of its own.
 * @param {import('./peers/peer.mjs').PeerModule} module
 */
async function byItself({ measure }, { modelPath, threads, size, streams }, { rate }) {
  const cpu = watchCpu();
  const result = await measure(modelPath, { threads, size, streams, rate });
  return { ...result, othersCpu: cpu.shareOfOthers(), served: [] };
}

/** @param {import('./peers/peer.mjs').PeerModule} module */
async function bySessions({ load }, { modelPath, vocabularyPath, threads, size, streams }, workload) {
  const start = performance.now();
  const { cacheTokens = CACHE_TOKENS } = workload;
  const peer = await load(modelPath, { threads, streams, contextLength: workload.contextLength(size), cacheTokens });
  const loadSeconds = (performance.now() - start) / 1000;
  const phases = workload.phases(size, encoder(vocabularyPath), streams);
  if (!workload.cold) await peer.generate({ ...WARM_UP, onToken: () => {} });
  const cpu = watchCpu(peer.pid);
  const began = peer.isColdUntilAsked ? 0 : performance.now();
  const { wallSeconds, served } = await serve(peer.generate, phases, streams);
  const othersCpu = cpu.shareOfOthers();
  const run = { wallSeconds, served, schedulingShare: peer.schedulingShare?.() };
  const peak = peer.peakRssMiB ? peer.peakRssMiB() : peakRssMiB(peer.pid);
  await peer.close();
  return {
    ...{ version: peer.version, device: peer.device, loadSeconds, othersCpu, peakRssMiB: peak },
    ...run,
    tokensPerSecond: rates[workload.rate](run),
    oracleHitRate: oracleHitRate(inOrder(served), cacheTokens),
    ...(workload.cold && coldFigures(modelPath, cacheTokens, peak, began + served[0].tokenTimesMs[0])),
  };
}

/** `firstTokenMs`: since the start of the process that made it. */
function coldFigures(modelPath, cacheTokens, peak, firstTokenMs) {
  const kvMiB = (cacheTokens * modelSize(modelPath).kvBytesPerToken) / MIB;
  return {
    firstTokenSeconds: firstTokenMs / 1000,
    beyondModelMiB: peak && peak - statSync(modelPath).size / MIB - kvMiB,
  };
}

/** Prompts and outputs by submission. */
function inOrder(served) {
  const sorted = served.toSorted((a, b) => a.startMs - b.startMs);
  return sorted.map(({ request: { prompt }, outputIds }) => ({ prompt, outputIds }));
}

process.on('disconnect', () => process.exit(1));
const report = await measure(JSON.parse(process.argv[2])).then(
  (run) => ({ run }),
  (error) => ({ error: error.message }),
);
process.send(report, () => process.exit());
