/** Puts the sessions of a workload to a peer and times every token. Law: at most `streams` sessions are open at a time. */

/**
 * @typedef {import('./workloads.mjs').Answer & { tokenTimesMs: number[] }} Served
 *   a generation with the time of each token after its submission
 */

/**
 * @param {import('./peers/peer.mjs').Peer['generate']} generate
 * @param {import('./workloads.mjs').Session[]} sessions
 * @param {number} streams
 * @returns {Promise<{ wallSeconds: number, served: Served[] }>} generations in the order of sessions
 */
export async function serve(generate, sessions, streams) {
  const served = sessions.map(() => []);
  const waiting = sessions.entries();
  const stream = async () => {
    for (const [index, session] of waiting) {
      await session(async (request) => {
        const answer = await timed(generate, request);
        served[index].push(answer);
        return answer;
      });
    }
  };
  const start = performance.now();
  await Promise.all(Array.from({ length: streams }, stream));
  return { wallSeconds: (performance.now() - start) / 1000, served: served.flat() };
}

async function timed(generate, request) {
  const tokenTimesMs = [];
  const start = performance.now();
  const answer = await generate({ ...request, onToken: () => tokenTimesMs.push(performance.now() - start) });
  const counts = [answer.outputIds.length, tokenTimesMs.length];
  if (counts.some((count) => count !== request.maxTokens)) {
    const opening = JSON.stringify(request.prompt.slice(0, 24));
    throw new Error(`the prompt ${opening}…: ${counts.join(' ids and ')} tokens, not ${request.maxTokens} of each`);
  }
  return { ...answer, tokenTimesMs };
}
