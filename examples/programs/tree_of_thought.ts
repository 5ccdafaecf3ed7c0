/** Tree of thought (Yao et al., 2023): several next steps are proposed and judged side by side, and the best goes on. */
import { fn, gen, select, type Meta } from 'sglang';
import { runAsMain } from '../backend.ts';

// #region program
const BRANCHES = 3;
const DEPTH = 3;

/** How much likelier `yes` is than `no`, where the backend has scores. */
const approval = (judged: { vars: { good: string }; meta(name: 'good'): Meta }) => {
  const [yes, no] = judged.meta('good').scores ?? [Number(judged.vars.good === 'yes'), 0];
  return yes! - no!;
};

export const treeOfThought = fn(async (s, { task }: { task: string }) => {
  s`How to plant a tree:\nStep 1: Dig a hole.\nStep 2: Put the tree into it.\nStep 3: Water it.\nDone: The tree can grow.\n\n${task}`;
  const seeds = Array.from({ length: BRANCHES }, (_, i) => i + 1);
  for (let depth = 1; depth <= DEPTH; depth++) {
    s`\nStep ${depth}:`;
    const steps = await s.forkMap(
      seeds,
      (branch, seed) => branch`${gen('step', { maxTokens: 32, stop: '\n', temperature: 0.7, seed })}
Is this a good step, yes or no? ${select('good', ['yes', 'no'])}`,
    );
    s`${steps.reduce((best, step) => (approval(step) > approval(best) ? step : best)).vars.step}`;
  }
  return s`\nDone:${gen('end', { maxTokens: 32, stop: '\n' })}`;
});
// #endregion program

export async function main(): Promise<void> {
  const task = 'How to make a cup of tea:';
  const text = (await treeOfThought.run({ task }, { temperature: 0 })).text();
  console.log(text.slice(text.indexOf(task)));
}

await runAsMain(import.meta.url, main);
