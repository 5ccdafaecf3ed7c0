/**
 * Rows of arguments, and what programs made of them, as JSON Lines. Laws: a finished row is on disk before the next one
 * is reported; a file that breaks off in a line is read up to there; a complete file is in the order of its rows.
 */
import { appendFileSync, existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { UsageError } from './options.ts';

export interface Finished {
  /** Which row of the input, from 0. */
  row: number;
  args: object;
  vars: Readonly<Record<string, unknown>>;
}

/** The objects of a JSON Lines file, in order. */
export function readRows(file: string): object[] {
  return linesOf(file).map(({ text, number }) => {
    const value = parsed(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
    throw new UsageError(`${file}:${number}: expected a JSON object with the program's arguments, got ${shown(text)}`);
  });
}

/** An output file that is continued where it broke off. */
export class Output {
  readonly finished = new Map<number, Finished>();

  constructor(
    readonly file: string,
    rows: readonly object[],
  ) {
    for (const { text, number } of existsSync(file) ? linesOf(file) : []) {
      const line = parsed(text) as Finished | undefined;
      if (line === undefined) break;
      if (JSON.stringify(line.args) !== JSON.stringify(rows[line.row])) {
        throw new UsageError(
          `${file}:${number}: made of other arguments than row ${line.row} has now; give another --output, or remove it`,
        );
      }
      this.finished.set(line.row, line);
    }
    if (existsSync(file)) this.#rewrite([...this.finished.values()]);
  }

  add(line: Finished): void {
    this.finished.set(line.row, line);
    appendFileSync(this.file, asLine(line));
  }

  /** Puts the lines in the order of the rows. */
  sort(): void {
    this.#rewrite([...this.finished.values()].sort((a, b) => a.row - b.row));
  }

  #rewrite(lines: readonly Finished[]): void {
    const partial = `${this.file}.partial`;
    writeFileSync(partial, lines.map(asLine).join(''));
    renameSync(partial, this.file);
  }
}

export function asLine(line: object): string {
  return `${JSON.stringify(line)}\n`;
}

function linesOf(file: string): { text: string; number: number }[] {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new UsageError(`${file}: ${(error as Error).message}`);
  }
  const lines = text.split('\n').map((line, i) => ({ text: line, number: i + 1 }));
  return lines.filter((line) => line.text.trim() !== '');
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function shown(text: string): string {
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
