/** Skeleton of thought (Ning et al., 2023): a list of points first, then all points expanded side by side. */
import { fn, gen } from 'sglang';
import { runAsMain } from '../backend.ts';

// #region program
const POINTS = 3;

export const skeletonOfThought = fn(async (s, { topic }: { topic: string }) => {
  s`Tips for good sleep:\n1. Go to bed early.\n2. Turn off the lights.\n3. Avoid coffee in the evening.\n\nTips for ${topic}:\n`;
  const points: string[] = [];
  for (let i = 1; i <= POINTS; i++) {
    const t = s`${i}.${gen('point', { stop: ['\n', '.'], maxTokens: 12 })}.\n`;
    points.push((await t.get('point')).trim());
  }
  const parts = await s.forkMap(
    points,
    (branch, point) =>
      branch`\nWhy? "${point}" is good advice because${gen('part', { stop: ['\n', '.'], maxTokens: 32 })}.`,
  );
  return s`\n${parts.map(({ vars }, i) => `${points[i]}, because${vars.part}.`).join('\n')}`;
});
// #endregion program

export async function main(): Promise<void> {
  const state = await skeletonOfThought.run({ topic: 'staying healthy' }, { temperature: 0 });
  console.log(state.text().slice(state.text().indexOf('Tips for staying')));
}

await runAsMain(import.meta.url, main);
