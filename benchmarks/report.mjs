/**
 * A record as Markdown: how it was measured, a line for each workload, number of streams and contestant, and what it says
 * about the targets.
 */
import { verdicts } from './targets.mjs';

/**
 * Columns; one that no line has anything for is left out.
 * @type {[string, (row: any, name: string) => string][]}
 */
const columns = [
  ['workload', ({ workload }) => workload],
  ['streams', ({ streams }) => `${streams}`],
  ['engine', (_, name) => name],
  ['tok/s', of(({ tokensPerSecond }) => number(tokensPerSecond))],
  ['ours ÷ it', ({ peers }, name) => times(peers[name].against?.speed)],
  ['TTFT p50 / p99 ms', of(({ ttftP50Ms, ttftP99Ms }) => pair(ttftP50Ms, ttftP99Ms))],
  ['inter-token p50 / p99 ms', of(({ interTokenP50Ms, interTokenP99Ms }) => pair(interTokenP50Ms, interTokenP99Ms))],
  ['prompt from cache, of ideal', of(({ hitRate, oracleHitRate }) => cached(hitRate, oracleHitRate))],
  ['scheduling', of(({ schedulingShare }) => fine(schedulingShare))],
  ['constraint costs', of(({ constraintOverhead }) => percent(constraintOverhead))],
  ['after the long prefix', of(({ longPrefixShare }) => percent(longPrefixShare))],
  ['valid', of(({ validShare }) => percent(validShare))],
  ['first token s', of(({ firstTokenSeconds }) => number(firstTokenSeconds))],
  ['wall s', of(({ wallSeconds }) => number(wallSeconds))],
  ['peak RSS MiB', of(({ peakRssMiB }) => number(peakRssMiB))],
  ['beyond file and KV MiB', of(({ beyondModelMiB }) => number(beyondModelMiB))],
  ['load s', of(({ loadSeconds }) => number(loadSeconds))],
  ['CPU used by others', of(({ othersCpu }) => percent(othersCpu))],
];

/** Share of the CPU that others may use in a run before the report warns. */
const QUIET = 0.1;

/** @returns {string} */
export function renderRecord(record) {
  const lines = record.rows.flatMap((row) =>
    Object.keys(row.peers).map((name) => columns.map(([, cell]) => cell(row, name))),
  );
  const isUsed = (_, i) => lines.some((cells) => cells[i] !== '');
  const table = [columns.map(([title]) => title), columns.map(() => '---'), ...lines];
  const said = verdicts(record.rows).map((line) => `- ${line}`);
  return [
    ...heading(record),
    '',
    ...table.map((cells) => `| ${cells.filter(isUsed).join(' | ')} |`),
    ...(said.length ? ['', ...said] : []),
  ].join('\n');
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

/** A cell of a contestant's medians. */
function of(cell) {
  return ({ peers }, name) => cell(peers[name].median);
}

function times(ratio) {
  return isMissing(ratio) ? '' : `${ratio.toFixed(2)} ×`;
}

function pair(a, b) {
  return isMissing(a) && isMissing(b) ? '' : `${number(a) || '–'} / ${number(b) || '–'}`;
}

/** `50 %, 99 %`: the hit rate, and how much that is of the ideal cache's. */
function cached(rate, ideal) {
  if (isMissing(rate)) return '';
  return ideal ? `${percent(rate)}, ${percent(rate / ideal)}` : percent(rate);
}

function percent(share) {
  return isMissing(share) ? '' : `${Math.round(share * 100)} %`;
}

function fine(share) {
  return isMissing(share) ? '' : `${number(100 * share)} %`;
}

/** Three digits below 100, thousands with a comma; nothing for what was not measured. */
function number(value) {
  if (isMissing(value)) return '';
  return value.toLocaleString('en', value < 100 ? { maximumSignificantDigits: 3 } : { maximumFractionDigits: 0 });
}

function isMissing(value) {
  return value === null || value === undefined;
}
