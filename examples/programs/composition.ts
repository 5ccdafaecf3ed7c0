/** Programs made of programs: a part with a name, arguments given ahead, expressions used twice. */
import { fn, gen, system, user } from 'sglang';
import { runAsMain } from '../backend.ts';

// #region program
const brief = system`You are a helpful assistant.`;
const short = { maxTokens: 32, stop: ['.', '\n'] };

/** A program is called on a state to go on with it. */
const followUp = fn((s, { about }: { about: string }) =>
  s(user`Tell me about ${about}.`).assistant(gen('more', short), '.'),
);

export const interview = fn((s, { place, about }: { place: string; about: string }) =>
  followUp(s(brief).user(`What is ${place}?`).assistant(gen('answer', short), '.'), { about }),
);

/** The same program with one of its arguments given. */
export const aboutItsFood = interview.bind({ about: 'its food' });
// #endregion program

export async function main(): Promise<void> {
  const { vars } = await aboutItsFood.run({ place: 'Rome' }, { temperature: 0 });
  console.log(`${vars.answer}.\n${vars.more}.`);
}

await runAsMain(import.meta.url, main);
