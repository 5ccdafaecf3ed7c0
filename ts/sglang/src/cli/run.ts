/** `sglang run`: a program on rows of arguments. Law: a row that is finished is never computed again or lost. */
import { writeFileSync } from 'node:fs';
import type { Backend } from '../backends/backend.ts';
import { Trace } from '../lang/trace.ts';
import type { BatchOptions, Result } from '../lang/types.ts';
import { formatTrace } from '../trace/text.ts';
import { traceHtml } from '../trace/html.ts';
import type { AnyProgram } from './load-program.ts';
import type { Options } from './options.ts';
import { asLine, Output, readRows } from './rows.ts';

type Vars = Readonly<Record<string, unknown>>;

export interface RunCall {
  program: AnyProgram;
  file: string;
  options: Options<'run'>;
  batch: Pick<BatchOptions, 'temperature' | 'maxTokens' | 'signal'>;
  stdout: NodeJS.WriteStream;
  stderr: NodeJS.WriteStream;
  /** Only asked for where a row is left to compute. */
  openBackend(): Promise<{ backend: Backend; close(): Promise<void> }>;
}

export async function runProgram({
  program,
  file,
  options,
  batch,
  stdout,
  stderr,
  openBackend,
}: RunCall): Promise<void> {
  const { input, output: outputFile, concurrency, trace: traceFile } = options;
  const rows = input === undefined ? [{}] : readRows(input);
  const output = outputFile === undefined ? undefined : new Output(outputFile, rows);
  const left = rows.map((args, row) => ({ args, row })).filter(({ row }) => !output?.finished.has(row));
  const failures: string[] = [];
  const trace = traceFile === undefined ? undefined : new Trace();
  const onSettled = (outcome: PromiseSettledResult<Result<Vars>>, index: number) => {
    const { row, args } = left[index]!;
    if (outcome.status === 'rejected') return void failures.push(`row ${row}: ${causeOf(outcome.reason)}`);
    const line = { row, args, vars: outcome.value.vars };
    if (output) output.add(line);
    else stdout.write(asLine(line));
  };
  if (left.length > 0) {
    const { backend, close } = await openBackend();
    const list = left.map(({ args }) => args);
    const settled = { settled: true, progress: rows.length > 1, onSettled, concurrency } as const;
    await program.runBatch(list, { ...batch, ...settled, backend, trace }).finally(close);
  }
  if (trace) show(trace, traceFile!, file, stderr);
  if (batch.signal?.aborted) throw interrupted(batch.signal, rows.length, output);
  if (failures.length > 0) {
    const again = output ? '; the same command tries them again' : '';
    throw new Error(`${failures.length} of ${rows.length} rows failed${again}\n  ${failures.join('\n  ')}`);
  }
  output?.sort();
}

function interrupted({ reason }: AbortSignal, total: number, output?: Output): Error {
  const kept = output ? `; ${output.finished.size} of ${total} rows are in ${output.file}` : '';
  return new Error(`${(reason as Error).message}${kept}`);
}

/** `-` is the terminal. */
function show(trace: Trace, target: string, title: string, stderr: NodeJS.WriteStream): void {
  if (target === '-') stderr.write(formatTrace(trace));
  else writeFileSync(target, traceHtml(trace, title));
}

function causeOf(error: Error & { cause?: unknown }): string {
  return error.cause instanceof Error ? error.cause.message : error.message;
}
