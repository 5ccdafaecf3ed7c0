/** Control flow: what the model chooses decides how the prompt goes on. */
import { fn, gen, select } from 'sglang';
import { runAsMain } from '../backend.ts';

// #region program
export const controlFlow = fn(async (s, { question }: { question: string }) => {
  const t = s`To answer this question: ${question}, I need to use a ${select('tool', ['calculator', 'web browser'])}. `;
  if ((await t.get('tool')) === 'calculator') return t`The math expression is${gen('expression', { stop: '\n' })}`;
  return t`The website url is${gen('url', { stop: '\n' })}`;
});
// #endregion program

async function main(): Promise<void> {
  // #region run
  const { vars } = await controlFlow.run({ question: 'What is 6 times 7?' }, { temperature: 0 });
  console.log(`${vars.tool}:${vars.expression ?? vars.url}`);
  // #endregion run
}

await runAsMain(import.meta.url, main);
