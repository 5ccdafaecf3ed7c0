/** Runs as a peer would report them, for tests: one generation per list of token times, ids counted from `firstId`. */
export function run(tokenTimes, { wallSeconds = 1, firstId = 1, promptTokens = 5, ...rest } = {}) {
  const served = tokenTimes.map((tokenTimesMs) => ({
    promptTokens,
    outputIds: tokenTimesMs.map((_, i) => firstId + i),
    tokenTimesMs,
  }));
  return {
    version: '1',
    device: 'cpu',
    loadSeconds: 0.5,
    wallSeconds,
    peakRssMiB: 100,
    othersCpu: 0.25,
    served,
    ...rest,
  };
}
