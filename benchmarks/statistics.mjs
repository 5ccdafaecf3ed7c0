/** Numbers from runs. Law: what several runs say is their median, and a figure that was not measured is null, never 0. */

/** The middle value, or the mean of the two middle ones; null of nothing. */
export function median(values) {
  if (values.length === 0) return null;
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The smallest value that at least `share` of the values do not exceed (nearest rank); null of nothing. */
export function percentile(values, share) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? null;
}

export function mean(values) {
  return sum(values) / values.length;
}

export function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

/**
 * The figures of one run. An inter-token time is the time between two tokens of one generation as they reach
 * JavaScript; tokens that arrive together are 0 apart.
 * @param {import('./cell.mjs').Run} run
 */
export function figures({ served, loadSeconds, wallSeconds, peakRssMiB, othersCpu }) {
  const firsts = served.map(({ tokenTimesMs }) => tokenTimesMs[0]);
  const gaps = served.flatMap(({ tokenTimesMs }) => tokenTimesMs.slice(1).map((time, i) => time - tokenTimesMs[i]));
  return {
    outTokensPerSecond: sum(served.map(({ outputIds }) => outputIds.length)) / wallSeconds,
    wallSeconds,
    ttftMeanMs: mean(firsts),
    ttftP99Ms: percentile(firsts, 0.99),
    interTokenP50Ms: percentile(gaps, 0.5),
    interTokenP99Ms: percentile(gaps, 0.99),
    peakRssMiB,
    loadSeconds,
    othersCpu,
  };
}

/**
 * The median of each figure over the runs that have it.
 * @param {ReturnType<typeof figures>[]} runs
 */
export function medians(runs) {
  const over = (name) => median(runs.map((run) => run[name]).filter((value) => value !== null));
  return Object.fromEntries(Object.keys(runs[0] ?? {}).map((name) => [name, over(name)]));
}
