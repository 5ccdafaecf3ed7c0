/**
 * One measurement: one peer, one workload, one number of streams, in a process of its own (`cell-process.mjs`), so that
 * memory, caches and crashes are its own.
 *
 * @typedef {object} Cell
 * @property {string} peer
 * @property {string} modelPath
 * @property {string} vocabularyPath  the GGUF file that prompts are encoded with
 * @property {number} threads
 * @property {string} workload  id of an entry of `workloads`
 * @property {number} streams
 * @property {import('./workloads.mjs').Size} size
 *
 * @typedef {object} Run  what a peer does not tell, or a workload does not ask for, is left out
 * @property {string} version
 * @property {string} device
 * @property {number} tokensPerSecond  by the workload's rate
 * @property {number} [loadSeconds]    import and load, until the first generation can be asked for
 * @property {number} [wallSeconds]
 * @property {number | null} [peakRssMiB]  of the whole process, pages of a mapped model file included
 * @property {number | null} othersCpu  share of the machine's CPU time that went to other processes meanwhile
 * @property {number} [oracleHitRate]  of the same requests, see `oracle.mjs`
 * @property {number} [schedulingShare]  see `Peer`
 * @property {number} [firstTokenSeconds]  of a cold workload: since the process began
 * @property {number} [beyondModelMiB]     of a cold workload: peak RSS without the model's file and the KV cache
 * @property {import('./sessions.mjs').Served[]} served  empty for a program that is its own benchmark
 */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const program = fileURLToPath(new URL('./cell-process.mjs', import.meta.url));
/** Longer than any sound run takes; a peer that hangs must not hang the others' measurement. */
const LIMIT_MS = 6 * 60_000;

/**
 * @param {Cell} cell
 * @returns {Promise<Run>} rejects if the peer fails, dies or hangs
 */
export function measureApart(cell) {
  return outcome(fork(program, [JSON.stringify(cell)], { timeout: LIMIT_MS, killSignal: 'SIGTERM' }));
}

/**
 * What a process reports, or else how it ended.
 * @param {import('node:events').EventEmitter} child
 * @returns {Promise<Run>}
 */
export function outcome(child) {
  return new Promise((resolve, reject) => {
    child.on('message', ({ run, error }) => (run ? resolve(run) : reject(new Error(error))));
    child.on('error', reject);
    const early = (code, signal) => new Error(`the process ended without a result, with ${signal ?? `code ${code}`}`);
    child.on('close', (code, signal) => reject(early(code, signal)));
  });
}
