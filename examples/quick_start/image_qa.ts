/** Pictures in a prompt; needs a model that takes them. */
import { fn, gen, image } from 'sglang';
import { runAsMain } from '../backend.ts';

// #region program
export const imageQa = fn((s, { file, question }: { file: string; question: string }) =>
  s.user(image(file), question).assistant(gen('answer', { maxTokens: 256 })),
);
// #endregion program

/** A red square of 8 × 8 pixels. */
const RED_SQUARE =
  'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR42mP4z8CAFTEMLQkAKP8/wc53yE8AAAAASUVORK5CYII=';

async function main(): Promise<void> {
  const { vars } = await imageQa.run({ file: process.argv[2] ?? RED_SQUARE, question: 'What is in this picture?' });
  console.log(vars.answer);
}

await runAsMain(import.meta.url, main);
