/** Parallelism: two branches expand a tip each, side by side; what they share is computed once. */
import { fn, gen } from 'sglang';
import { runAsMain } from '../backend.ts';

// #region program
export const tipSuggestion = fn(async (s) => {
  const head = s`Here are two tips for staying healthy: 1. Balanced Diet. 2. Regular Exercise.\n\n`;
  const [a, b] = head.fork(2);
  const [first, second] = await Promise.all([
    a`Now, expand tip 1 into a paragraph:\n${gen('tip', { maxTokens: 256, stop: '\n\n' })}`,
    b`Now, expand tip 2 into a paragraph:\n${gen('tip', { maxTokens: 256, stop: '\n\n' })}`,
  ]);
  return head`Tip 1:${first.vars.tip}\nTip 2:${second.vars.tip}\nIn summary${gen('summary')}`;
});
// #endregion program

async function main(): Promise<void> {
  console.log((await tipSuggestion.run({}, { temperature: 0 })).text());
}

await runAsMain(import.meta.url, main);
