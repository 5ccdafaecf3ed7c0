/** The command line of `npm run bench`. Law: what is not understood is refused, with what would be. */
import os from 'node:os';
import { parseArgs } from 'node:util';
import { peerNames } from './peers/peer.mjs';
import { workloads } from './workloads.mjs';

/** The peer that ratios are of. */
export const OURS = 'sglang';

/** Fewer make a median of luck. */
const FULL_ROUNDS = 3;

const flags = /** @type {const} */ ({
  quick: { type: 'boolean', default: false },
  peers: { type: 'string', default: 'node-llama-cpp' },
  rounds: { type: 'string' },
  threads: { type: 'string' },
  streams: { type: 'string' },
  requests: { type: 'string' },
  tokens: { type: 'string' },
  model: { type: 'string' },
  help: { type: 'boolean', default: false },
});

export const usage = `npm run bench -- [workload …] [options]
  workloads      ${Object.entries(workloads)
    .map(([id, { title }]) => `${id}: ${title}`)
    .join('\n                 ')}
  --peers a,b    rivals to measure beside ${OURS}: ${rivals().join(', ')}
  --rounds n     runs of each, interleaved (default ${FULL_ROUNDS})
  --quick        one round
  --streams a,b  numbers of concurrent requests, in place of the workload's
  --threads n    compute threads of every peer (default: all cores)
  --model path   a GGUF file, in place of the default model
  --requests n, --tokens n   smaller workloads, to try things out
The record goes to benchmarks/record/, or to benchmarks/.trial/ if anything was made smaller.`;

/**
 * @param {string[]} args
 * @returns what to run; `trial` if it is less than whole workloads in all rounds
 */
export function readOptions(args) {
  const { values, positionals } = parseArgs({ args, options: flags, allowPositionals: true });
  const counts = (flag) => values[flag]?.split(',').map((text) => count(flag, text));
  const one = (flag) => (values[flag] === undefined ? undefined : count(flag, values[flag]));
  const rounds = one('rounds') ?? (values.quick ? 1 : FULL_ROUNDS);
  const size = {};
  for (const flag of ['requests', 'tokens']) if (values[flag] !== undefined) size[flag] = one(flag);
  const streams = counts('streams');
  return {
    help: values.help,
    workloads: positionals.length ? positionals.map((id) => oneOf('workload', id, Object.keys(workloads))) : ['W4'],
    peers: [OURS, ...values.peers.split(',').map((name) => oneOf('peer', name, rivals()))],
    rounds,
    threads: one('threads') ?? os.availableParallelism(),
    streams,
    size,
    model: values.model,
    trial: rounds < FULL_ROUNDS || streams !== undefined || Object.keys(size).length > 0,
  };
}

function rivals() {
  return peerNames().filter((name) => name !== OURS);
}

function count(flag, text) {
  if (/^[1-9]\d*$/.test(text)) return Number(text);
  throw new Error(`--${flag}: expected a positive integer, got "${text}"`);
}

function oneOf(kind, name, known) {
  if (known.includes(name)) return name;
  throw new Error(`no ${kind} is called "${name}"; there are ${known.join(', ')}`);
}
