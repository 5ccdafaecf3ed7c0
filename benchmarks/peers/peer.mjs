/**
 * What an engine to be measured offers: its module exports `name`, `notes`, `install`, and `load` or `measure`. Law: where
 * there is a choice, a rival gets the cheaper way, and the record says which.
 *
 * @typedef {object} LoadOptions
 * @property {number} threads
 * @property {number} streams        most generations at a time
 * @property {number} contextLength  tokens of the longest sequence, prompt and output
 * @property {number} cacheTokens    tokens that the KV cache holds, where a peer has one for all
 *
 * @typedef {object} Peer
 * @property {string} version
 * @property {string} device  what it computes with
 * @property {(request: import('../workloads.mjs').Request & { onToken: () => void }) => Promise<import('../workloads.mjs').Answer>} generate
 *   exactly `maxTokens` tokens, or fewer where a schema ends them; calls `onToken` when a token reaches JavaScript
 * @property {() => Promise<unknown>} close
 * @property {number} [pid]  the process that computes, where it is not this one
 * @property {boolean} [isColdUntilAsked]  whether each generation is a process of its own
 * @property {() => number | null} [peakRssMiB]  of that process
 * @property {() => number} [schedulingShare]  of the time of all steps: what is neither the model nor handing over
 *
 * @typedef {object} Measured
 * @property {string} version
 * @property {string} device
 * @property {number} tokensPerSecond
 *
 * @typedef {object} PeerModule
 * @property {string} name
 * @property {string[]} notes                   for the record: how it was made to do the same work
 * @property {() => Promise<unknown>} install   gets what is missing, once
 * @property {(modelPath: string, options: LoadOptions) => Promise<Peer>} [load]
 * @property {(modelPath: string, options: { threads: number, streams: number, size: import('../workloads.mjs').Size, rate: string }) => Promise<Measured>} [measure]
 *   of a program with a benchmark of its own, in place of `load`
 */
import { readdirSync } from 'node:fs';

const here = new URL('./', import.meta.url);

/** Names of all peers. */
export function peerNames() {
  const files = readdirSync(here).filter((file) => file.endsWith('.mjs') && file !== 'peer.mjs');
  return files.map((file) => file.slice(0, -'.mjs'.length));
}

/**
 * @param {string} name
 * @returns {Promise<PeerModule>}
 */
export async function peerModule(name) {
  if (!peerNames().includes(name)) throw new Error(`no peer is called "${name}"; there are ${peerNames().join(', ')}`);
  return import(new URL(`${name}.mjs`, here).href);
}
