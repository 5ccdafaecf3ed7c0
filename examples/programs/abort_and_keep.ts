/** An aborted run rejects, and its error has what was known by then. */
import { fn, gen, ProgramError } from 'sglang';
import { runAsMain } from '../backend.ts';

const story = fn(
  (s) => s`Chapter 1: The sea.${gen('first', { maxTokens: 24 })}\nChapter 2: The storm.${gen('second')}`,
);

export async function main(): Promise<void> {
  // #region abort
  const run = story.run({}, { temperature: 0 }); // or with { signal: AbortSignal.timeout(5000) }
  try {
    for await (const { name } of run.events()) if (name === 'second') run.abort();
    await run;
  } catch (error) {
    if (!(error instanceof ProgramError)) throw error;
    console.log(`${error.name}; kept: ${Object.keys(error.vars)}`);
  }
  // #endregion abort
}

await runAsMain(import.meta.url, main);
