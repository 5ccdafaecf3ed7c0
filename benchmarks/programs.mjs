/** Programs that are run for a benchmark. Law: a terminal sees what they print; a pipe only sees it if they fail. */
import { spawn } from 'node:child_process';

/** Characters of a failed program's output that are worth showing. */
const TAIL = 2000;

/**
 * A step of set-up.
 * @param {string} title  what is going on, in one line
 * @param {string} command
 * @param {string[]} args
 * @param {import('node:child_process').SpawnOptions} [options]
 */
export async function setUpWith(title, command, args, options = {}) {
  console.log(`── ${title}`);
  const start = performance.now();
  await collect(command, args, { ...options, watch: process.stdout.isTTY });
  console.log(`   done in ${((performance.now() - start) / 1000).toFixed(1)} s`);
}

/**
 * Runs a program to its end.
 * @param {string} command
 * @param {string[]} args
 * @param {import('node:child_process').SpawnOptions & { watch?: boolean }} [options]
 * @returns {Promise<string>} its standard output; rejects with the end of all it printed if it fails
 */
export function collect(command, args, { watch = false, ...options } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
    let [printed, tail] = ['', ''];
    const keep = (chunk) => {
      tail = `${tail}${chunk}`.slice(-TAIL);
      if (watch) process.stdout.write(chunk);
    };
    child.stdout.on('data', (chunk) => ((printed += chunk), keep(chunk)));
    child.stderr.on('data', keep);
    child.on('error', (error) => reject(new Error(`${command} could not be started: ${error.message}`)));
    child.on('close', (code, signal) => {
      if (code === 0) resolve(printed);
      else
        reject(new Error(`"${[command, ...args].join(' ')}" ended with ${signal ?? `code ${code}`}:\n${tail.trim()}`));
    });
  });
}
