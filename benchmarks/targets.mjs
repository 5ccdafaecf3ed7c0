/**
 * What the project means to reach, as data, and what a record says about it. A ratio is held against the best rival (the one
 * that ours is the least ahead of) or against one that is named; the roof is a rival only by name.
 *
 * @typedef {object} Target
 * @property {string} workload
 * @property {number} [streams]   where it is for this number only
 * @property {string} [ours]      where it is for this contestant's rows only
 * @property {string} [rival]     in place of the best one
 * @property {string} says        what `value` is
 * @property {(row: any, target: Target) => number | null | undefined} value
 * @property {number} [atLeast]
 * @property {number} [atMost]
 */

/** How many times as fast ours is. */
function speed({ peers }, { rival }) {
  if (rival) return peers[rival]?.against?.speed;
  return least(rivalsOf(peers).map(({ against }) => against.speed));
}

/** Ours as a share of the best rival's, of a figure that is better the smaller it is. */
function ofBest(figure) {
  return ({ peers }) => {
    const best = least(rivalsOf(peers).map(({ median }) => median[figure]));
    return best === null ? null : oursOf(peers).median[figure] / best;
  };
}

/** A figure of ours, or of the contestant that is named. */
function figure(name) {
  return ({ peers }, { rival }) => (rival ? peers[rival] : oursOf(peers))?.median[name];
}

const ideal = { says: 'of what an ideal cache saves', value: shareOfIdeal, atLeast: 0.96 };
const times = (workload, atLeast, rest) => ({ workload, says: '× the best rival', value: speed, atLeast, ...rest });
const over = (workload, rival, atLeast, rest) => times(workload, atLeast, { rival, says: `× ${rival}`, ...rest });
const latency = (workload) =>
  [
    ['ttftP50Ms', 'TTFT p50'],
    ['ttftP99Ms', 'TTFT p99'],
    ['interTokenP99Ms', 'inter-token p99'],
  ].map(([name, title]) => ({ workload, says: `of the best rival's ${title}`, value: ofBest(name), atMost: 1 }));
const prefill = (workload) => [
  over(workload, 'llama-bench', 7),
  times(workload, 2.2, { ours: 'sglang' }),
  over(workload, 'roof', 0.65),
  times(workload, 1.5, { ours: 'sglang@f16' }),
  times(workload, 1.5, { ours: 'sglang@bf16' }),
];
const large = ['large-q4_k_m', 'large-q8_0'].map((format) => `llama-bench@${format}`);

/** @type {Target[]} */
const targets = [
  times('W1', 15),
  times('W2', 10),
  times('W3', 6),
  times('W4', 2, { streams: 1 }),
  ...[8, 32].map((streams) => times('W4', 4, { streams })),
  ...['W1', 'W2', 'W3', 'W6', 'W7', 'W8', 'W9'].map((workload) => ({ workload, ...ideal })),
  { workload: 'W4', says: 'of step time for scheduling', value: figure('schedulingShare'), atMost: 0.003 },
  ...latency('W1'),
  ...latency('W4'),
  ...prefill('prefill-512'),
  ...prefill('prefill-2048'),
  over('decode', 'llama-bench', 2),
  times('decode', 1.4, { ours: 'sglang' }),
  over('decode', 'roof', 0.85),
  ...[4, 8].map((streams) => over('batched', 'llama-bench@q4_0', 2, { streams })),
  ...[16, 32].map((streams) => over('batched', 'llama-bench@q4_0', 3, { streams })),
  ...large.flatMap((rival) => [over('large-prefill', rival, 2), over('large-decode', rival, 1.2)]),
  { workload: 'common-prefix', says: 'of the speed after 50 tokens', value: figure('longPrefixShare'), atLeast: 0.58 },
  { workload: 'cold', says: 'MiB beyond file and KV', value: figure('beyondModelMiB'), atMost: 80 },
  { workload: 'cold', says: 's to load', value: figure('loadSeconds'), atMost: 0.5 },
  {
    ...{ workload: 'cold', says: 's to the first token of `sglang generate`', rival: 'sglang-generate' },
    ...{ value: figure('firstTokenSeconds'), atMost: 1 },
  },
];

/**
 * What the rows of a record say: `W1 at 16: 17.2 × the best rival, at least 15: met`.
 * @returns {string[]} one line for each target that some row is about
 */
export function verdicts(rows) {
  return rows.flatMap((row) =>
    targets.filter((target) => isAbout(target, row)).flatMap((target) => verdict(target, row)),
  );
}

/** @param {Target} target */
function isAbout({ workload, streams, ours }, row) {
  const is = (wanted, actual) => wanted === undefined || wanted === actual;
  return workload === row.workload && is(streams, row.streams) && is(ours, Object.keys(row.peers)[0]);
}

function verdict(target, row) {
  const { says, atLeast, atMost } = target;
  const value = target.value(row, target);
  if (!Number.isFinite(value)) return [];
  const isMet = atLeast === undefined ? value <= atMost : value >= atLeast;
  const wanted = atLeast === undefined ? `at most ${atMost}` : `at least ${atLeast}`;
  const shown = Number(value.toPrecision(3));
  return [`${row.workload} at ${row.streams}: ${shown} ${says}, ${wanted}: ${isMet ? 'met' : 'MISSED'}`];
}

function oursOf(peers) {
  return Object.values(peers)[0];
}

/** The contestants that ours is compared with. */
function rivalsOf(peers) {
  const isRival = ([name, { against }]) => against && !/^(roof|sglang)/.test(name);
  return Object.entries(peers)
    .filter(isRival)
    .map(([, peer]) => peer);
}

function shareOfIdeal({ peers }) {
  const { hitRate, oracleHitRate } = oursOf(peers).median;
  return oracleHitRate ? hitRate / oracleHitRate : null;
}

/** The least of the numbers that there are; null if there is none. */
function least(values) {
  const known = values.filter(Number.isFinite);
  return known.length ? Math.min(...known) : null;
}
