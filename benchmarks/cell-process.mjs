/** The process of one measurement: reads a cell from its argument, sends `{ run }` or `{ error }` to its parent, ends. */
import { watchCpu } from './machine.mjs';
import { peerModule } from './peers/peer.mjs';
import { serve } from './sessions.mjs';
import { workloads } from './workloads.mjs';

/**
 * @param {import('./cell.mjs').Cell} cell
 * @returns {Promise<import('./cell.mjs').Run>}
 */
async function measure({ peer: name, modelPath, threads, workload: id, streams, size }) {
  const workload = workloads[id];
  const { load } = await peerModule(name);
  const start = performance.now();
  const peer = await load(modelPath, { threads, streams, contextLength: workload.contextLength(size) });
  const loadSeconds = (performance.now() - start) / 1000;
  await warmUp(peer);
  const cpu = watchCpu();
  const { wallSeconds, served } = await serve(peer.generate, workload.sessions(size), streams);
  const othersCpu = cpu.shareOfOthers();
  const peakRssMiB = process.resourceUsage().maxRSS / 1024;
  await peer.close();
  return { version: peer.version, device: peer.device, loadSeconds, wallSeconds, peakRssMiB, othersCpu, served };
}

/** Touches pages and starts threads with a prompt that shares no prefix with any that is timed. */
async function warmUp({ generate }) {
  await generate({ prompt: '0 1 1 2 3 5 8', maxTokens: 4, onToken: () => {} });
}

const report = await measure(JSON.parse(process.argv[2])).then(
  (run) => ({ run }),
  (error) => ({ error: error.message }),
);
process.send(report, () => process.exit());
