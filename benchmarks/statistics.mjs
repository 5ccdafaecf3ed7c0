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

/** Tokens per second of a run, by what is to be known of it. All times in milliseconds since the start. */
export const rates = {
  /** Output tokens of all, from the first submission to the last token. */
  output: ({ wallSeconds, served }) => sum(served.map(({ outputIds }) => outputIds.length)) / wallSeconds,
  /** Prompt tokens while only a prompt is computed; the first token out is part of it. */
  prefill: ({ served }) =>
    (1000 * sum(served.map(({ request }) => request.prompt.length))) /
    sum(served.map(({ tokenTimesMs }) => tokenTimesMs[0])),
  /** Output tokens of all while all are decoding: after the last first token, to the first last one. */
  decode({ served }) {
    const times = served.map(({ startMs, tokenTimesMs }) => tokenTimesMs.map((time) => startMs + time));
    const [from, to] = [Math.max(...times.map((each) => each[0])), Math.min(...times.map((each) => each.at(-1)))];
    if (to <= from) throw new Error('there was no time at which all streams decoded');
    return (1000 * times.flat().filter((time) => time > from && time <= to).length) / (to - from);
  },
};

/**
 * The figures of one run. An inter-token time is the time between two tokens of one generation as they reach
 * JavaScript; tokens that arrive together are 0 apart.
 * @param {import('./cell.mjs').Run} run
 */
export function figures({ served, ...run }) {
  const firsts = served.map(({ tokenTimesMs }) => tokenTimesMs[0]);
  const all = gaps(served);
  const [constrained, free] = [true, false].map((is) => served.filter(({ request }) => !!request.jsonSchema === is));
  return {
    tokensPerSecond: run.tokensPerSecond,
    wallSeconds: run.wallSeconds,
    ttftP50Ms: percentile(firsts, 0.5),
    ttftP99Ms: percentile(firsts, 0.99),
    interTokenP50Ms: percentile(all, 0.5),
    interTokenP99Ms: percentile(all, 0.99),
    hitRate: hitRate(served),
    oracleHitRate: run.oracleHitRate,
    schedulingShare: run.schedulingShare,
    constraintOverhead: constrained.length ? mean(gaps(constrained)) / mean(gaps(free)) - 1 : null,
    longPrefixShare: longPrefixShare(served),
    validShare: constrained.length ? mean(constrained.map(isValid)) : null,
    firstTokenSeconds: run.firstTokenSeconds,
    peakRssMiB: run.peakRssMiB,
    beyondModelMiB: run.beyondModelMiB,
    loadSeconds: run.loadSeconds,
    othersCpu: run.othersCpu,
  };
}

/** Speed of decoding after a long common prefix, as a share of that after a short one. */
function longPrefixShare(all) {
  const [long, short] = ['long', 'short'].map((after) => all.filter(({ request }) => request.after === after));
  return long.length ? rates.decode({ served: long }) / rates.decode({ served: short }) : null;
}

function gaps(served) {
  return served.flatMap(({ tokenTimesMs }) => tokenTimesMs.slice(1).map((time, i) => time - tokenTimesMs[i]));
}

/** Share of all prompt tokens that were not computed again; null where a peer does not tell, or nothing was asked. */
function hitRate(served) {
  if (served.length === 0 || served.some(({ cachedTokens }) => cachedTokens === null)) return null;
  return sum(served.map(({ cachedTokens }) => cachedTokens)) / sum(served.map(({ request }) => request.prompt.length));
}

/**
 * 1 if the text is JSON with exactly the fields that the schema requires, each of an allowed value; else 0.
 * @param {import('./sessions.mjs').Served} served
 */
function isValid({ text = '', request }) {
  const allows = {
    string: (value, { maxLength }) => typeof value === 'string' && [...value].length <= maxLength,
    integer: (value, { minimum, maximum }) => Number.isInteger(value) && value >= minimum && value <= maximum,
    boolean: (value) => typeof value === 'boolean',
  };
  const fits = ([name, field], value) =>
    field.enum ? field.enum.includes(value[name]) : allows[field.type](value[name], field);
  try {
    const value = JSON.parse(text);
    const fields = Object.entries(request.jsonSchema.properties);
    return Number(Object.keys(value).length === fields.length && fields.every((field) => fits(field, value)));
  } catch {
    return 0;
  }
}

/**
 * The median of each figure over the runs that have it.
 * @param {ReturnType<typeof figures>[]} runs
 */
export function medians(runs) {
  const over = (name) => median(runs.map((run) => run[name]).filter((value) => typeof value === 'number'));
  return Object.fromEntries(Object.keys(runs[0] ?? {}).map((name) => [name, over(name)]));
}
