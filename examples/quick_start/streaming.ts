/** Streaming: the text of a program as it comes. */
import { runAsMain } from '../backend.ts';
import { textQa } from './text_qa.ts';

async function main(): Promise<void> {
  // #region run
  const run = textQa.run({ question: 'What is the capital of France?' }, { temperature: 0.1 });
  for await (const delta of run.textStream()) process.stdout.write(delta);
  process.stdout.write('\n');
  // #endregion run
}

await runAsMain(import.meta.url, main);
