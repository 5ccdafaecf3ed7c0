/** A question and its answer on one line; what the examples of batches and of streams run. */
import { fn, gen } from 'sglang';

// #region program
export const textQa = fn(
  (s, { question }: { question: string }) => s`Q: ${question}\nA:${gen('answer', { stop: '\n' })}`,
);
// #endregion program
