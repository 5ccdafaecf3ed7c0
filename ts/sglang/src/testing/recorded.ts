/**
 * A backend that answers from a file, and that writes the file by asking a real backend once. Laws: a call is answered
 * with what the same call got when it was recorded, and a call that was not recorded is an error; the n-th of equal
 * calls gets the n-th answer, and the last answer stands for all later ones.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Backend, Delta, GenerateOptions, GenMeta, Selection, SelectOptions, Turn } from '../backends/backend.ts';
import { SglangError } from '../engine/errors.ts';
import { plainText } from '../lang/prompt.ts';

export interface RecordedOptions {
  /** Ask the live backend and write the file anew. Default: whether the environment has SGLANG_RECORD=1. */
  record?: boolean;
}

/** The backend of the recording `file`; `live` makes the backend that is asked while recording. */
export function recorded(
  file: string,
  live: () => Backend | Promise<Backend>,
  { record = process.env['SGLANG_RECORD'] === '1' }: RecordedOptions = {},
): Backend {
  return record ? new Recorder(file, live) : new Player(file);
}

/** What tells one call from another. */
interface Call {
  kind: 'stream' | 'select' | 'render';
  turns: readonly Turn[];
  options?: GenerateOptions | SelectOptions;
  choices?: readonly string[];
}
interface Streamed {
  pieces: string[];
  meta: GenMeta;
}
type Answer = Streamed | Selection | string;
interface Entry {
  call: object;
  answers: Answer[];
}

const PROMPT_END = 80;

class Player implements Backend {
  readonly kind = 'recorded';
  readonly #file: string;
  #answers: Map<string, Answer[]> | undefined;
  readonly #asked = new Map<string, number>();

  constructor(file: string) {
    this.#file = file;
  }

  async *stream(turns: readonly Turn[], options: GenerateOptions): AsyncGenerator<Delta, void> {
    const { pieces, meta } = this.#answer<Streamed>({ kind: 'stream', turns, options });
    for (const text of pieces) {
      options.signal?.throwIfAborted();
      yield { text };
    }
    yield { text: '', meta };
  }

  async select(turns: readonly Turn[], choices: readonly string[], options: SelectOptions): Promise<Selection> {
    return this.#answer<Selection>({ kind: 'select', turns, choices, options });
  }

  async render(turns: readonly Turn[]): Promise<string> {
    return this.#answer<string>({ kind: 'render', turns });
  }

  #answer<A extends Answer>(call: Call): A {
    this.#answers ??= new Map(readEntries(this.#file).map(({ call: known, answers }) => [keyOf(known), answers]));
    const key = keyOf(plain(call));
    const index = this.#asked.get(key) ?? 0;
    this.#asked.set(key, index + 1);
    const answers = this.#answers.get(key);
    const answer = answers?.[Math.min(index, answers.length - 1)];
    if (answer !== undefined) return answer as A;
    const end = JSON.stringify(plainText(call.turns).slice(-PROMPT_END));
    throw new SglangError(
      'bad_request',
      `${this.#file} has no answer to this ${call.kind}, whose prompt ends with ${end}; record it with SGLANG_RECORD=1`,
    );
  }
}

class Recorder implements Backend {
  readonly kind = 'recorded';
  readonly #file: string;
  readonly #makeLive: () => Backend | Promise<Backend>;
  #live: Promise<Backend> | undefined;
  readonly #entries = new Map<string, Entry>();

  constructor(file: string, live: () => Backend | Promise<Backend>) {
    this.#file = file;
    this.#makeLive = live;
  }

  async *stream(turns: readonly Turn[], options: GenerateOptions): AsyncGenerator<Delta, void> {
    const keep = this.#slot({ kind: 'stream', turns, options });
    const pieces: string[] = [];
    for await (const delta of (await this.#backend()).stream(turns, options)) {
      if (delta.text !== '') pieces.push(delta.text);
      if (delta.meta) keep({ pieces, meta: delta.meta });
      yield delta;
    }
  }

  async select(turns: readonly Turn[], choices: readonly string[], options: SelectOptions): Promise<Selection> {
    const keep = this.#slot({ kind: 'select', turns, choices, options });
    return keep(await (await this.#backend()).select(turns, choices, options));
  }

  async render(turns: readonly Turn[]): Promise<string> {
    const keep = this.#slot({ kind: 'render', turns });
    return keep((await (await this.#backend()).render?.(turns)) ?? plainText(turns));
  }

  async warm(turns: readonly Turn[], options: { signal?: AbortSignal }): Promise<void> {
    await (await this.#backend()).warm?.(turns, options);
  }

  async flushCache(): Promise<void> {
    await (await this.#backend()).flushCache?.();
  }

  #backend(): Promise<Backend> {
    this.#live ??= Promise.resolve(this.#makeLive());
    return this.#live;
  }

  /** A place for the answer in the order of the questions; the file is written with each answer. */
  #slot(call: Call): <A extends Answer>(answer: A) => A {
    const known = plain(call);
    const key = keyOf(known);
    const entry = this.#entries.get(key) ?? { call: known, answers: [] };
    this.#entries.set(key, entry);
    const index = entry.answers.length++;
    return (answer) => {
      entry.answers[index] = answer;
      this.#write();
      return answer;
    };
  }

  /** In the order of the calls' texts, so that a recording made anew differs only where answers do. */
  #write(): void {
    const sorted = [...this.#entries].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, entry]) => entry);
    const complete = sorted.map(({ call, answers }) => ({
      call,
      answers: answers.filter((answer) => answer !== undefined),
    }));
    mkdirSync(path.dirname(this.#file), { recursive: true });
    writeFileSync(
      this.#file,
      `${JSON.stringify(
        complete.filter(({ answers }) => answers.length > 0),
        null,
        1,
      )}\n`,
    );
  }
}

function readEntries(file: string): Entry[] {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Entry[];
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const what = code === 'ENOENT' ? 'does not exist' : `is no recording (${message})`;
    throw new SglangError('bad_request', `${file} ${what}; record it with SGLANG_RECORD=1`);
  }
}

/** The call as JSON has it: without its signal, pictures by their hash. */
function plain({ options, ...call }: Call): object {
  const { signal: _signal, whole: _whole, ...sampling } = (options ?? {}) as GenerateOptions;
  const byHash = (_key: string, value: unknown) =>
    value instanceof Uint8Array ? { sha256: createHash('sha256').update(value).digest('hex') } : value;
  return JSON.parse(JSON.stringify({ ...call, options: sampling }, byHash)) as object;
}

function keyOf(call: object): string {
  return JSON.stringify(call, (_key, value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
}
