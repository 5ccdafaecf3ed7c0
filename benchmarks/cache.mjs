/** Where benchmarks keep what is expensive to make: peers, models in other formats. Nothing of it is in the workspace. */
import { existsSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';

const { SGLANG_CACHE, XDG_CACHE_HOME } = process.env;
const root = SGLANG_CACHE || path.join(XDG_CACHE_HOME || path.join(homedir(), '.cache'), 'sglang');

/** A path in `<cache>/peers`; `<cache>` is the engine's own: SGLANG_CACHE, or `sglang` in XDG_CACHE_HOME or ~/.cache. */
export function inCache(...parts) {
  return path.join(root, 'peers', ...parts);
}

/**
 * Makes what lies at `target` unless it is there. Law: under its final name it is complete, as `make` works elsewhere.
 * @param {string} target
 * @param {(unfinished: string) => unknown} make  creates a file or folder at the path it is given
 */
export async function once(target, make) {
  if (existsSync(target)) return target;
  const unfinished = `${target}.unfinished`;
  rmSync(unfinished, { recursive: true, force: true });
  await make(unfinished);
  renameSync(unfinished, target);
  return target;
}
