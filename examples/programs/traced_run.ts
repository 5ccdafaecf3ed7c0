/** A trace: what a run did, with times, tokens and what the cache spared. */
import { writeFileSync } from 'node:fs';
import { formatTrace, Trace, traceHtml } from 'sglang';
import { runAsMain } from '../backend.ts';
import { tipSuggestion } from '../quick_start/parallel.ts';

export async function main(): Promise<void> {
  // #region trace
  const trace = new Trace();
  await tipSuggestion.run({}, { trace, temperature: 0, maxTokens: 32 });
  console.log(formatTrace(trace));
  if (process.argv[2]) writeFileSync(process.argv[2], traceHtml(trace, 'Tips'));
  // #endregion trace
}

await runAsMain(import.meta.url, main);
