/** The progress bar of batches. Law: nothing is written where standard error is not a terminal. */
import { SingleBar } from 'cli-progress';
import type { ProgressReporter } from '../lang/batch.ts';

/** A bar on standard error that counts finished runs. */
export const progressBar: ProgressReporter = (total) => {
  const bar = new SingleBar({ format: '{bar} {value}/{total} | {eta_formatted} left', stream: process.stderr });
  bar.start(total, 0);
  return { advance: (done) => bar.update(done), stop: () => bar.stop() };
};
