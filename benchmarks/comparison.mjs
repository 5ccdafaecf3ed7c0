/**
 * What the runs of a row say together. Law: a ratio is the median of ratios within rounds, so that a machine that is
 * slow for a while is slow for both sides; a run that failed (null) takes its round out of the ratio and nothing else.
 */
import { figures, mean, median, medians, sum } from './statistics.mjs';

/**
 * @param {Record<string, (import('./cell.mjs').Run | null)[]>} runs  of each peer, by round
 * @param {string} ours  the peer that the others are compared with
 */
export function comparison(runs, ours) {
  const peers = {};
  for (const [peer, theirs] of Object.entries(runs)) {
    const each = theirs.map((run) => run && figures(run));
    peers[peer] = { median: medians(each.filter(Boolean)), runs: each };
    if (peer !== ours) peers[peer].against = against(runs[ours], theirs);
  }
  const done = Object.values(runs)
    .flat()
    .find((run) => run?.served.length);
  return { promptTokens: done ? promptTokens(done) : null, peers };
}

/**
 * How ours compares with a rival.
 * `speed`: how many times as many tokens per second; `sameTokens`: see {@link sameTokens}. Null if no round has both.
 */
function against(ours, theirs) {
  const rounds = ours.map((run, round) => [run, theirs[round]]).filter(([a, b]) => a && b);
  const speed = ([a, b]) => a.tokensPerSecond / b.tokensPerSecond;
  return {
    speed: median(rounds.map(speed)),
    sameTokens: median(
      rounds.filter(([a, b]) => a.served.length && b.served.length).map(([a, b]) => sameTokens(a.served, b.served)),
    ),
  };
}

/**
 * Mean share of a generation's tokens before the first that two peers chose differently; 1 is the same text. Engines
 * round differently, so near ties of a small model part ways: a low share is no error by itself, and 0 hints at one.
 */
export function sameTokens(served, rivalServed) {
  const shares = served.map(({ outputIds }, place) => {
    const first = outputIds.findIndex((id, i) => id !== rivalServed[place].outputIds[i]);
    return first < 0 ? 1 : first / outputIds.length;
  });
  return mean(shares);
}

/** Lengths of the prompts, which all contestants were given alike but for outputs that become prompts. */
function promptTokens({ served }) {
  const counts = served.map(({ request }) => request.prompt.length);
  return { min: Math.min(...counts), max: Math.max(...counts), total: sum(counts) };
}
