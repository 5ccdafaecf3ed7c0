/**
 * Where models are kept: named ones in `<cache>/models/<name>/<file>`, those of the hub in its own cache. A file under its final name is complete and checked; it gets
 * that name by an atomic rename. What is unfinished is called `<file>.partial`, and while a process writes it also
 * carries the process's mark, so that two processes never write to one file.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, readdir, rename } from 'node:fs/promises';
import { homedir, hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';

/** `SGLANG_CACHE`, else `$XDG_CACHE_HOME/sglang`, else `~/.cache/sglang`. */
export function cacheFolder(env: NodeJS.ProcessEnv): string {
  return env['SGLANG_CACHE'] || join(env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'sglang');
}

export function modelsFolder(env: NodeJS.ProcessEnv): string {
  return join(cacheFolder(env), 'models');
}

/** What the hub's own tools keep: `HF_HOME`, else `huggingface` beside our cache. */
export function hubHome(env: NodeJS.ProcessEnv): string {
  return env['HF_HOME'] || join(env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'huggingface');
}

/** The hub's cache, which Python's client reads and writes too: `HF_HUB_CACHE`, else `hub` in its home. */
export function hubFolder(env: NodeJS.ProcessEnv): string {
  return env['HF_HUB_CACHE'] || env['HUGGINGFACE_HUB_CACHE'] || join(hubHome(env), 'hub');
}

/** An unfinished file of this process: `keep` leaves it for a later attempt, `finish` gives it its final name. */
export interface Partial {
  readonly path: string;
  keep(): Promise<void>;
  finish(): Promise<void>;
}

/** Takes over what an earlier attempt left of `target`, or names a new file. */
export async function claimPartial(target: string): Promise<Partial> {
  await mkdir(dirname(target), { recursive: true });
  const path = `${target}.partial.${hostname()}.${process.pid}.${randomUUID().slice(0, 8)}`;
  for (const left of await abandoned(target)) {
    if (await succeeds(rename(left, path))) break;
  }
  return {
    path,
    keep: async () => void (await succeeds(rename(path, `${target}.partial`))),
    finish: () => rename(path, target),
  };
}

/** Partial files that no living process of this machine owns. */
async function abandoned(target: string): Promise<string[]> {
  const prefix = `${basename(target)}.partial`;
  const names = (await readdir(dirname(target))).filter((name) => name.startsWith(prefix));
  const isFree = (mark: string) => {
    const [, host, pid] = /^\.(.+)\.(\d+)\.[0-9a-f]{8}$/.exec(mark) ?? [];
    return mark === '' || (host === hostname() && !isAlive(Number(pid)));
  };
  return names.filter((name) => isFree(name.slice(prefix.length))).map((name) => join(dirname(target), name));
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function succeeds(step: Promise<unknown>): Promise<boolean> {
  return step.then(
    () => true,
    () => false,
  );
}
