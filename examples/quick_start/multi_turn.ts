/** A conversation of several turns; the second question is answered with the first in mind. */
import { fn, gen } from 'sglang';
import { runAsMain } from '../backend.ts';

// #region program
export const multiTurn = fn((s, q: { q1: string; q2: string }) =>
  s.system`You are a helpful assistant.`
    .user(q.q1)
    .assistant(gen('answer1', { maxTokens: 256 }))
    .user(q.q2)
    .assistant(gen('answer2', { maxTokens: 256 })),
);
// #endregion program

async function main(): Promise<void> {
  // #region run
  const state = await multiTurn.run(
    { q1: 'What is the capital of the United States?', q2: 'List two local attractions.' },
    { temperature: 0 },
  );
  for (const { role, content } of state.messages()) console.log(`${role}: ${content}`);
  // #endregion run
}

await runAsMain(import.meta.url, main);
