/** Self-consistency (Wang et al., 2022): several chains of thought, and the answer that most of them reach. */
import { fn, gen } from 'sglang';
import { runAsMain } from '../backend.ts';

// #region program
export const selfConsistency = fn(async (s, { question, chains }: { question: string; chains: number }) => {
  s`Question: Tom has 3 apples and buys 4 more. How many apples does he have?
Reasoning: Tom starts with 3 apples. He buys 4 more. 3 + 4 = 7.
Answer: 7

Question: Mia has 9 cards and loses 2. How many cards does she have?
Reasoning: Mia starts with 9 cards. She loses 2. 9 - 2 = 7.
Answer: 7

Question: ${question}
Reasoning:`;
  const seeds = Array.from({ length: chains }, (_, i) => i + 1);
  const found = await s.forkMap(
    seeds,
    (branch, seed) =>
      branch`${gen('reasoning', { temperature: 0.5, seed, stop: '\n', maxTokens: 48 })}\nAnswer: ${gen('answer', {
        temperature: 0,
        regex: /[0-9]+\n/,
        stop: '\n',
      })}`,
  );
  const votes = new Map<string, number>();
  for (const { vars } of found) votes.set(vars.answer, (votes.get(vars.answer) ?? 0) + 1);
  const [winner, count] = [...votes].sort(([, a], [, b]) => b - a)[0]!;
  return s` (${count} of ${chains} chains agree)\nAnswer: ${winner}`;
});
// #endregion program

export async function main(): Promise<void> {
  const question = 'Anna has 5 pens and gets 2 more. How many pens does she have?';
  const state = await selfConsistency.run({ question, chains: 5 });
  console.log(state.text().split('\n').slice(-2).join('\n'));
}

await runAsMain(import.meta.url, main);
