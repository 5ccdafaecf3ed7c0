/** A character sheet in one generation: a regular expression holds the whole JSON, and what it fixes costs no step. */
import { fn, gen } from 'sglang';
import { runAsMain } from '../backend.ts';

// #region program
const CHARACTER = new RegExp(
  [
    '\\{',
    '  "name": "[A-Z][a-z]{2,10}( [A-Z][a-z]{2,10})?",',
    '  "house": "(Gryffindor|Slytherin|Ravenclaw|Hufflepuff)",',
    '  "age": [1-9][0-9],',
    '  "wand": \\{ "wood": "[a-z]{3,10}", "inches": (9|1[0-4]) \\},',
    '  "alive": (true|false)',
    '\\}',
  ].join('\n'),
);

export const character = fn(
  (s, { name }: { name: string }) =>
    s`${name} is a character in Harry Potter. A description of ${name} as JSON:\n${gen('json', { regex: CHARACTER, maxTokens: 160 })}`,
);
// #endregion program

export async function main(): Promise<void> {
  const state = await character.run({ name: 'Hermione Granger' }, { temperature: 0 });
  console.log(JSON.parse(state.vars.json));
}

await runAsMain(import.meta.url, main);
