/**
 * The memory of generative agents (Park et al., 2023): what an agent saw is rated for importance, and what it remembers
 * is chosen by recency, importance and relevance.
 */
import { fn, gen } from 'sglang';
import { runAsMain } from '../backend.ts';

// #region program
export const rateImportance = fn(
  (s, { memory }: { memory: string }) =>
    s`On a scale of 1 to 9, where 1 is everyday and 9 changes a life, rate each memory.
Memory: I brushed my teeth. Rating: 1
Memory: My house burned down. Rating: 9
Memory: A dog barked. Rating: 1
Memory: My friend asked me to help her move. Rating: 6
Memory: I had some soup. Rating: 1
Memory: My brother said that he will marry. Rating: 8
Memory: ${memory} Rating: ${gen('importance', { regex: /[1-9]/ })}`,
);

export const plan = fn(
  (s, { memories, situation }: { memories: string[]; situation: string }) =>
    s`Ada remembers: ${memories.join(' ')}\n${situation} She says: "${gen('words', { stop: ['\n', '"'], maxTokens: 32 })}"`,
);
// #endregion program

export interface Memory {
  text: string;
  importance: number;
}

const words = (text: string) => new Set(text.toLowerCase().match(/[a-z]{4,}/g) ?? []);

/** The memories that matter most now, the most relevant first; later ones in the list are more recent. */
export function recall(memories: readonly Memory[], situation: string, count: number): Memory[] {
  const asked = words(situation);
  const score = ({ text, importance }: Memory, age: number) =>
    [...words(text)].filter((word) => asked.has(word)).length + importance / 9 + 0.9 ** age;
  const scored = memories.map((memory, i) => ({ memory, score: score(memory, memories.length - 1 - i) }));
  return scored
    .sort((a, b) => b.score - a.score)
    .slice(0, count)
    .map(({ memory }) => memory);
}

const seen = ['I had bread for breakfast.', 'A bus passed by.', 'Ben told me that he will marry.', 'A dog barked.'];

export async function main(): Promise<void> {
  const rated = await rateImportance.runBatch(
    seen.map((memory) => ({ memory })),
    { temperature: 0 },
  );
  const memories = seen.map((text, i) => ({ text, importance: Number(rated[i]!.vars.importance) }));
  for (const { text, importance } of memories) console.log(`${importance} ${text}`);
  const situation = 'Ada meets Ben at the station.';
  const recalled = recall(memories, situation, 2).map(({ text }) => text);
  const { vars } = await plan.run({ memories: recalled, situation }, { temperature: 0 });
  console.log(`remembers: ${recalled.join(' ')}\nsays: ${vars.words}`);
}

await runAsMain(import.meta.url, main);
