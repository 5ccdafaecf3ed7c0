/** A record as Markdown: how it was measured, then a line for each workload, number of streams and peer. */

const columns = [
  'workload',
  'streams',
  'engine',
  'out tok/s',
  'ours ÷ it',
  'TTFT mean / p99 ms',
  'inter-token p50 / p99 ms',
  'wall s',
  'peak RSS MiB',
  'load s',
  'CPU used by others',
];

/** Share of the CPU that others may use in a run before the report warns. */
const QUIET = 0.1;

/** @returns {string} */
export function renderRecord(record) {
  const lines = record.rows.flatMap((row) => Object.keys(row.peers).map((peer) => tableLine(row, peer)));
  return [...heading(record), '', tableRow(columns), tableRow(columns.map(() => '---')), ...lines].join('\n');
}

function heading({ date, machine, threads, model, node, rounds, peers, trial, rows, failures }) {
  const engines = Object.entries(peers).map(
    ([name, { version, device }]) => `${name} ${version ?? '?'} on ${device ?? '?'}`,
  );
  return [
    `${date.slice(0, 10)}${trial ? ', a trial' : ''}: ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB; ` +
      `${threads} threads; ${model.file}; Node ${node}; medians of ${rounds} interleaved runs, the ratio within rounds.`,
    `Engines: ${engines.join('; ')}.`,
    ...disturbance(rows),
    ...failures.map((failure) => `Failed: ${failure}`),
  ];
}

/** A line if others took so much of the CPU in some run that it says little about the engines. */
function disturbance(rows) {
  const runs = rows.flatMap(({ peers }) => Object.values(peers).flatMap(({ runs }) => runs));
  const most = Math.max(0, ...runs.map((run) => run?.othersCpu ?? 0));
  return most > QUIET ? [`Not quiet: other processes used up to ${percent(most)} of the CPU.`] : [];
}

function tableLine({ workload, streams, peers }, peer) {
  const { median: m, against } = peers[peer];
  return tableRow([
    workload,
    streams,
    peer,
    number(m.outTokensPerSecond),
    against?.speed ? `${against.speed.toFixed(2)} ×` : '',
    `${number(m.ttftMeanMs)} / ${number(m.ttftP99Ms)}`,
    `${number(m.interTokenP50Ms)} / ${number(m.interTokenP99Ms)}`,
    number(m.wallSeconds),
    number(m.peakRssMiB),
    number(m.loadSeconds),
    percent(m.othersCpu),
  ]);
}

function tableRow(cells) {
  return `| ${cells.join(' | ')} |`;
}

function percent(share) {
  return share === null || share === undefined ? '–' : `${Math.round(share * 100)} %`;
}

/** Three digits below 100, thousands with a comma; a dash for what was not measured. */
function number(value) {
  if (value === null || value === undefined) return '–';
  return value.toLocaleString('en', value < 100 ? { maximumSignificantDigits: 3 } : { maximumFractionDigits: 0 });
}
