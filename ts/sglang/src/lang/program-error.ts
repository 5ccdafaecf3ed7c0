/** The errors of programs that ran. Law: they carry what was known by then (`vars`, `results`) and what went wrong (`cause`). */
import type { Result } from './types.ts';

/** What a signal is aborted with where nobody gave a reason; an error by such a cause goes by its name. */
const abortNames: readonly unknown[] = ['AbortError', 'TimeoutError'];

export class ProgramError extends Error {
  override readonly name: string;

  constructor(
    message: string,
    /** Variables bound before the error. */
    readonly vars: Readonly<Record<string, unknown>>,
    override readonly cause: unknown,
  ) {
    super(message, { cause });
    const { name } = (cause ?? {}) as { name?: unknown };
    this.name = abortNames.includes(name) ? (name as string) : 'ProgramError';
  }
}

/** The error that stopped a batch, with the results of the rows that were done, each in its place. */
export class BatchError extends ProgramError {
  constructor(
    error: ProgramError,
    readonly results: readonly (Result<Record<string, unknown>> | undefined)[],
  ) {
    super(error.message, error.vars, error.cause);
  }
}

/** `where: message of cause`. */
export function programError(where: string, vars: Readonly<Record<string, unknown>>, cause: unknown): ProgramError {
  const what = cause instanceof Error ? cause.message : String(cause);
  return new ProgramError(where === '' ? what : `${where}: ${what}`, { ...vars }, cause);
}

/** Marks a promise so that its rejection, awaited late or never, does not end the process. */
export function quiet<P extends Promise<unknown>>(promise: P): P {
  promise.catch(() => {});
  return promise;
}
