/** A program from a file in JavaScript or TypeScript. Law: where there is none, the error says what the file has instead. */
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Backend } from '../backends/backend.ts';
import type { Program } from '../lang/types.ts';
import { UsageError } from './options.ts';

export type AnyProgram = Program<object, Record<string, unknown>>;

export interface LoadedProgram {
  program: AnyProgram;
  /** What the file exports as `backend`. */
  backend: Backend | undefined;
}

/** The program that `file` exports as `name`: without a name its default export, or the only one. */
export async function loadProgram(file: string, name?: string): Promise<LoadedProgram> {
  const module = await importFile(path.resolve(file)).catch((error: Error) => {
    throw new UsageError(`${file}: ${error.message.split('\n')[0]}`);
  });
  const programs = Object.entries(module).filter(([, value]) => isProgram(value)) as [string, AnyProgram][];
  return {
    program: chosen(file, name, programs, Object.keys(module)),
    backend: module['backend'] as Backend | undefined,
  };
}

function chosen(file: string, name: string | undefined, programs: [string, AnyProgram][], all: string[]): AnyProgram {
  const wanted = name ?? (programs.length === 1 ? programs[0]![0] : 'default');
  const found = programs.find(([key]) => key === wanted);
  if (found) return found[1];
  const names = programs.map(([key]) => key).join(', ');
  if (programs.length === 0) {
    const has = all.length > 0 ? `only ${all.join(', ')}` : 'nothing';
    throw new UsageError(`${file} exports no program, ${has}; write: export const name = fn((s, args) => …)`);
  }
  if (name !== undefined) throw new UsageError(`${file} exports no program "${name}"; its programs: ${names}`);
  throw new UsageError(`${file} exports several programs; choose one with --export: ${names}`);
}

function isProgram(value: unknown): boolean {
  const { run, runBatch } = (value ?? {}) as Partial<AnyProgram>;
  return typeof value === 'function' && typeof run === 'function' && typeof runBatch === 'function';
}

/** Node's own loader, with whatever was registered there; for TypeScript that it does not know, `jiti`. */
async function importFile(file: string): Promise<Record<string, unknown>> {
  const url = pathToFileURL(file).href;
  try {
    return (await import(url)) as Record<string, unknown>;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_UNKNOWN_FILE_EXTENSION') throw error;
    const { createJiti } = await import('jiti');
    return createJiti(url, { fsCache: false }).import(file);
  }
}
