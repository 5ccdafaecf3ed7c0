/** The error of a program that ran. Law: it carries what the program knew (`vars`) and what went wrong (`cause`). */

export class ProgramError extends Error {
  override readonly name = 'ProgramError';

  constructor(
    message: string,
    /** Variables bound before the error. */
    readonly vars: Readonly<Record<string, unknown>>,
    override readonly cause: unknown,
  ) {
    super(message, { cause });
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
