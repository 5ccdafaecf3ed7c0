/** Retrieval: the model asks, a search over documents finds, the model answers from what was found and names it. */
import { fn, gen, select } from 'sglang';
import { runAsMain } from '../backend.ts';

const documents: Record<string, string> = {
  lighthouse: 'The lighthouse of Arkona was built in 1827. Its light reaches 17 miles.',
  harbour: 'The harbour of Sassnitz was opened in 1889. Ferries to Sweden leave from there.',
  cliffs: 'The chalk cliffs of Stubbenkammer are 118 metres high.',
};

const words = (text: string) => text.toLowerCase().match(/[a-z0-9]+/g) ?? [];

/** The names of the documents that share most words with the query, rare words first (inverse document frequency). */
export function search(query: string, count: number): string[] {
  const all = Object.entries(documents).map(([name, text]) => ({ name, words: new Set(words(text)) }));
  const weight = (word: string) => Math.log(all.length / all.filter((one) => one.words.has(word)).length);
  const score = (known: Set<string>) =>
    [...new Set(words(query))].filter((word) => known.has(word)).reduce((sum, word) => sum + weight(word), 0);
  return all
    .sort((a, b) => score(b.words) - score(a.words))
    .slice(0, count)
    .map(({ name }) => name);
}

// #region program
export const retrieve = fn(async (s, { question }: { question: string }) => {
  const query = await s.copy((c) =>
    c`Question: ${question}\nWords to search for: ${gen('query', { stop: '\n', maxTokens: 16 })}`.get('query'),
  );
  const found = search(`${question} ${query}`, 2) as [string, string];
  for (const name of found) s`[${name}] ${documents[name]!}\n`;
  return s`Question: ${question}\nAnswer: ${gen('answer', { stop: '\n', maxTokens: 32 })}\nSource: ${select('source', found)}`;
});
// #endregion program

export async function main(): Promise<void> {
  const { vars } = await retrieve.run({ question: 'When was the lighthouse of Arkona built?' }, { temperature: 0 });
  console.log(`${vars.answer} [${vars.source}]`);
}

await runAsMain(import.meta.url, main);
