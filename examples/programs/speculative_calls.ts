/**
 * Speculative execution of API calls: where a program asks for several values in a row, one call often has written them
 * all, and the later ones cost nothing.
 */
import { fn, gen, Speculative, type Backend } from 'sglang';
import { runAsMain } from '../backend.ts';

// #region program
export const describe = fn(
  (s, { name }: { name: string }) =>
    s`Name: Marie Curie\nJob: chemist\nCountry: Poland\n\nName: Pablo Picasso\nJob: painter\nCountry: Spain\n\nName: ${name}\nJob:${gen('job', { stop: '\n', maxTokens: 12 })}
Country:${gen('country', { stop: '\n', maxTokens: 12 })}`,
);
// #endregion program

export async function main(backend: Backend): Promise<void> {
  // #region wrap
  const speculative = new Speculative(backend, { tokens: 24 });
  const { vars } = await describe.run({ name: 'Albert Einstein' }, { backend: speculative, temperature: 0 });
  console.log(`job:${vars.job}, country:${vars.country}`);
  console.log(`calls: ${speculative.stats.calls}, saved: ${speculative.stats.savedCalls}`);
  // #endregion wrap
}

await runAsMain(import.meta.url, main);
