/** Batches: one program on many arguments at once. */
import { runAsMain } from '../backend.ts';
import { textQa } from './text_qa.ts';

const questions = [
  'What is the capital of the United Kingdom?',
  'What is the capital of France?',
  'What is the capital of Japan?',
];

async function main(): Promise<void> {
  // #region run
  const states = await textQa.runBatch(
    questions.map((question) => ({ question })),
    { progress: true, temperature: 0 },
  );
  for (const state of states) console.log(state.text());
  // #endregion run
}

await runAsMain(import.meta.url, main);
