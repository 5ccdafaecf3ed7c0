/** A chat of any number of turns: each answer is computed on the cached turns before it. */
import { fn, gen } from 'sglang';
import { runAsMain } from '../backend.ts';

// #region program
export const chat = fn(async (s, { questions }: { questions: string[] }) => {
  s.system`You are a helpful assistant.`;
  for (const question of questions) {
    const t = s.user(question).assistant(gen('answer', { stop: ['.', '\n'], maxTokens: 64 }), '.');
    const { promptTokens, cachedTokens } = await t.meta('answer');
    console.log(`${await t.get('answer')}. (${cachedTokens} of ${promptTokens} prompt tokens from the cache)`);
  }
  return s;
});
// #endregion program

export async function main(): Promise<void> {
  const questions = ['What is a lighthouse?', 'Who needs it?', 'Where does it stand?'];
  await chat.run({ questions }, { temperature: 0 });
}

await runAsMain(import.meta.url, main);
