/** Node as a process of its own. Law: it ends with its test, whatever happens, and within its limit. */
import { spawn, type ChildProcess } from 'node:child_process';
import type { ExecutionContext } from 'ava';

/** Shorter than AVA waits for a test that says nothing. */
const LIMIT_MS = 100_000;

export interface Ended {
  /** Null where a signal ended it. */
  code: number | null;
  out: string;
  err: string;
}

/** The child; its output is read from the start, and `end` resolves with it. */
export function startNode(
  t: ExecutionContext,
  args: readonly string[],
  { env = process.env, cwd }: { env?: NodeJS.ProcessEnv; cwd?: string } = {},
) {
  const child = spawn(process.execPath, args, { env, cwd, timeout: LIMIT_MS, killSignal: 'SIGKILL' });
  const end = endOf(child);
  t.teardown(async () => {
    child.kill('SIGKILL');
    await end;
  });
  return { child, end };
}

function endOf(child: ChildProcess): Promise<Ended> {
  const text = { out: '', err: '' };
  child.stdout!.setEncoding('utf8').on('data', (chunk: string) => (text.out += chunk));
  child.stderr!.setEncoding('utf8').on('data', (chunk: string) => (text.err += chunk));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, ...text }));
  });
}

/** What it prints. Throws what it complains about where it fails. */
export async function outputOf(...given: Parameters<typeof startNode>): Promise<{ stdout: string; stderr: string }> {
  const { code, out, err } = await startNode(...given).end;
  if (code !== 0) throw new Error(`exit code ${code}\n${err}${out}`);
  return { stdout: out, stderr: err };
}
