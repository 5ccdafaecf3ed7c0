/** The command line on an engine without a model: what `main.ts` does, for tests to start as a process of its own. */
import { setTimeout as sleep } from 'node:timers/promises';
import { runCommand } from '../../src/cli/commands.ts';
import { FakeEngine } from '../server/fake-engine.ts';

process.exitCode = await runCommand(process.argv.slice(2), {
  env: process.env,
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  createEngine: async ({ onProgress, signal, ...options }) => {
    if (process.env['SHOW_OPTIONS']) process.stdout.write(`${JSON.stringify(options)}\n`);
    onProgress?.({ phase: 'load', doneBytes: 50e6, totalBytes: 100e6 });
    onProgress?.({ phase: 'load', doneBytes: 100e6, totalBytes: 100e6 });
    if (options.modelPath === 'slow') await sleep(60_000, undefined, { signal }).catch(() => {});
    signal?.throwIfAborted();
    return new FakeEngine(2);
  },
  examinerFor: () => {
    throw new Error('there is no addon');
  },
});
