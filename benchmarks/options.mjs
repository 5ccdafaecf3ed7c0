/** The command line of `npm run bench`. Law: what is not understood is refused, with what would be. */
import os from 'node:os';
import { parseArgs } from 'node:util';
import { formats } from './models.mjs';
import { peerNames } from './peers/peer.mjs';
import { groups, workloads } from './workloads.mjs';

/** The peer that ratios are of, where no other is named first. */
const OURS = 'sglang';

/** Fewer make a median of luck; a record says how many there were. */
const ROUNDS = 3;

const flags = /** @type {const} */ ({
  quick: { type: 'boolean', default: false },
  peers: { type: 'string' },
  rounds: { type: 'string' },
  threads: { type: 'string' },
  streams: { type: 'string' },
  model: { type: 'string' },
  help: { type: 'boolean', default: false },
});

const listed = (entries) => entries.map(([name, text]) => `${name.padEnd(14)} ${text}`).join('\n                 ');

export const usage = `npm run bench -- [workload …] [options]
npm run bench -- peers      gets and builds every rival (half an hour the first time)
npm run bench -- kernels    each op of the kernels beside the machine's roof
npm run bench -- language   programs beside the same ones by hand with OpenAI's client
  workloads      ${listed(Object.entries(workloads).map(([id, { title }]) => [id, title]))}
                 ${listed(Object.entries(groups).map(([id, ids]) => [id, ids.join(' ')]))}
  --peers a,b    whom to measure beside ${OURS}, in place of the workload's own; "" for nobody
                 peers: ${rivals().join(', ')}
                 with @ and a format: the same weights in ${formats.join(', ')}
  --rounds n     runs of each, interleaved (default ${ROUNDS}, or 1 if quick)
  --quick        small workloads, to see that they run
  --streams a,b  numbers of concurrent requests, in place of the workload's
  --threads n    compute threads of every peer (default: all cores)
  --model path   a GGUF file, in place of the default model
Record and plot go to benchmarks/record/, or to benchmarks/.trial/ if quick.`;

/**
 * @param {string[]} args
 * @returns what to run; `trial` if it is less than whole workloads
 */
export function readOptions(args) {
  const { values, positionals } = parseArgs({ args, options: flags, allowPositionals: true });
  const one = (flag) => (values[flag] === undefined ? undefined : count(flag, values[flag]));
  const list = (flag) => values[flag]?.split(',').filter(Boolean);
  const rounds = one('rounds') ?? (values.quick ? 1 : ROUNDS);
  const ids = [...new Set(positionals.flatMap((id) => groups[id] ?? [id]))];
  return {
    help: values.help,
    quick: values.quick,
    workloads: ids.length ? ids.map((id) => oneOf('workload', id, Object.keys(workloads))) : ['W4'],
    peers: values.peers === undefined ? undefined : [OURS, ...list('peers')].map(contestant),
    rounds,
    threads: one('threads') ?? os.availableParallelism(),
    streams: list('streams')?.map((text) => count('streams', text)),
    model: values.model,
    trial: values.quick,
  };
}

/** Checks `peer` or `peer@format`. */
function contestant(text) {
  const [peer, format] = text.split('@');
  oneOf('peer', peer, peerNames());
  if (format !== undefined) oneOf('format', format, formats);
  return text;
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
