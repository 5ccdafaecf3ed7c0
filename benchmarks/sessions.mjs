/** Puts the sessions of a workload to a peer and times every token. Law: at most `streams` sessions are open at a time. */

/**
 * @typedef {import('./workloads.mjs').Answer & { request: import('./workloads.mjs').Request, startMs: number, tokenTimesMs: number[] }} Served
 *   a generation with its submission since the start of all, and the time of each token after its submission
 */

/**
 * @param {import('./peers/peer.mjs').Peer['generate']} generate
 * @param {import('./workloads.mjs').Session[][]} phases
 * @param {number} streams
 * @returns {Promise<{ wallSeconds: number, served: Served[] }>} generations in the order of phases and sessions
 */
export async function serve(generate, phases, streams) {
  const served = [];
  const start = performance.now();
  for (const sessions of phases) served.push(...(await servePhase(generate, sessions, streams, start)));
  return { wallSeconds: (performance.now() - start) / 1000, served };
}

async function servePhase(generate, sessions, streams, start) {
  const served = sessions.map(() => []);
  const waiting = sessions.entries();
  const stream = async () => {
    for (const [index, session] of waiting) {
      await session(async (request) => {
        const answer = await timed(generate, request, start);
        served[index].push(answer);
        return answer;
      });
    }
  };
  await Promise.all(Array.from({ length: streams }, stream));
  return served.flat();
}

async function timed(generate, request, start) {
  const tokenTimesMs = [];
  const submitted = performance.now();
  const answer = await generate({ ...request, onToken: () => tokenTimesMs.push(performance.now() - submitted) });
  const counts = [answer.outputIds.length, tokenTimesMs.length];
  const wrong = (count) =>
    request.jsonSchema ? count === 0 || count > request.maxTokens : count !== request.maxTokens;
  if (counts.some(wrong)) {
    const asked = `${request.maxTokens} of each after ${request.prompt.length} tokens`;
    throw new Error(`${counts.join(' ids and ')} tokens came, not ${asked}`);
  }
  return { ...answer, request, startMs: submitted - start, tokenTimesMs };
}
