/** Few-shot question answering: examples in the prompt teach the form; a batch shares them in the cache. */
import { fn, gen } from 'sglang';
import { runAsMain } from '../backend.ts';

// #region program
const shots = [
  ['What is the opposite of big?', 'small'],
  ['What do cows drink?', 'water'],
  ['Which animal has a long trunk?', 'elephant'],
];

export const fewShotQa = fn((s, { question }: { question: string }) => {
  for (const [q, a] of shots) s`Question: ${q!}\nAnswer: ${a!}\n\n`;
  return s`Question: ${question}\nAnswer:${gen('answer', { stop: '\n', maxTokens: 16 })}`;
});
// #endregion program

const questions = ['What is the opposite of hot?', 'What do bees make?', 'Which animal says meow?'];

export async function main(): Promise<void> {
  const states = await fewShotQa.runBatch(
    questions.map((question) => ({ question })),
    { temperature: 0 },
  );
  for (const [i, state] of states.entries()) {
    const { answer } = state.vars;
    console.log(`${questions[i]}${answer} (${state.meta('answer').cachedTokens > 0 ? 'examples cached' : 'computed'})`);
  }
}

await runAsMain(import.meta.url, main);
