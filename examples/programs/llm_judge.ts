/** A judge by branch, solve and merge (Saha et al., 2023): an essay is judged on several sides at once, then graded. */
import { fn, gen } from 'sglang';
import { runAsMain } from '../backend.ts';

// #region program
const dimensions = ['clarity', 'originality', 'evidence'];

export const judgeEssay = fn(async (s, { essay }: { essay: string }) => {
  const head = s.system`You judge essays, briefly and fairly.`.user(`This is an essay:\n${essay}`);
  const judgments = await head.forkMap(dimensions, (branch, dimension) =>
    branch.user(`Judge its ${dimension} in one sentence.`).assistant(gen('judgment', { maxTokens: 40, stop: '\n' })),
  );
  const all = judgments.map(({ vars }, i) => `${dimensions[i]}: ${vars.judgment}`).join('\n');
  return head.user(`Judgments:\n${all}\nGive the essay a grade from A to D.`)
    .assistant`The grade is ${gen('grade', { regex: /[A-D][+-]?/, maxTokens: 4 })}`;
});
// #endregion program

const essay =
  'Cities should plant more trees. Trees cool the streets in summer, and people like to walk in their shade.';

export async function main(): Promise<void> {
  const state = await judgeEssay.run({ essay }, { temperature: 0 });
  console.log(state.messages().at(-2)!.content);
  console.log(state.vars.grade);
}

await runAsMain(import.meta.url, main);
