/** Parallel sampling: many continuations of one prompt at once, and the one the model itself finds most likely. */
import { fn, gen } from 'sglang';
import { runAsMain } from '../backend.ts';

// #region program
const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / Math.max(values.length, 1);

export const bestOf = fn(async (s, { prompt, samples }: { prompt: string; samples: number }) => {
  const head = s.user(prompt);
  const seeds = Array.from({ length: samples }, (_, i) => i + 1);
  const found = await head.forkMap(seeds, (branch, seed) =>
    branch.assistant(gen('text', { seed, temperature: 0.8, maxTokens: 24, stop: '\n', logprobs: true })),
  );
  const ranked = found
    .map((one) => ({ text: one.vars.text, score: mean((one.meta('text').logprobs ?? []).map((t) => t.logprob ?? 0)) }))
    .sort((a, b) => b.score - a.score);
  for (const { text, score } of ranked) console.log(`${score.toFixed(2)} ${text}`);
  return head.assistant(ranked[0]!.text);
});
// #endregion program

export async function main(): Promise<void> {
  const state = await bestOf.run({ prompt: 'Give a name for a small boat, with a reason.', samples: 4 });
  console.log(`best: ${state.messages().at(-1)!.content}`);
}

await runAsMain(import.meta.url, main);
