/** JSON by a template: the program writes keys and braces, the model only the values, each held to its own pattern. */
import { fn, gen, select } from 'sglang';
import { runAsMain } from '../backend.ts';

// #region program
export const extractCity = fn(
  (s, { text }: { text: string }) => s`${text}\nThe facts of this text as JSON:
{
  "name": "${gen('name', { stop: '"', maxTokens: 8 })}",
  "country": "${gen('country', { stop: '"', maxTokens: 8 })}",
  "population": ${gen('population', { regex: /[0-9]+,/, stop: ',', maxTokens: 12 })},
  "capital": ${select('capital', ['true', 'false'])}
}`,
);
// #endregion program

export async function main(): Promise<void> {
  const text = 'Paris is the capital city of France. It has a population of 2100000 people.';
  const state = await extractCity.run({ text }, { temperature: 0 });
  console.log(JSON.parse(state.text().slice(state.text().indexOf('{'))));
}

await runAsMain(import.meta.url, main);
