/** Runs as a peer would report them, for tests: one generation per list of token times, ids counted from `firstId`. */
import { rates } from '../statistics.mjs';

export function run(
  tokenTimes,
  { wallSeconds = 1, firstId = 1, promptTokens = 5, cachedTokens = 0, request = {}, ...rest } = {},
) {
  const served = tokenTimes.map((tokenTimesMs) => ({
    request: { prompt: Array(promptTokens).fill(0), maxTokens: tokenTimesMs.length, ...request },
    cachedTokens,
    outputIds: tokenTimesMs.map((_, i) => firstId + i),
    startMs: 0,
    tokenTimesMs,
  }));
  return {
    version: '1',
    device: 'cpu',
    loadSeconds: 0.5,
    wallSeconds,
    tokensPerSecond: rates.output({ wallSeconds, served }),
    peakRssMiB: 100,
    othersCpu: 0.25,
    served,
    ...rest,
  };
}
