/**
 * `sglang grammar`: walks instances through a constraint's masks, as the output of a model would be, and tells what was
 * accepted. Files hold `{schema, tests: [{valid, data}]}`, the same with `regex`, `ebnf`, `lark` or `structural_tag` (the
 * data are texts), or a JSON Schema alone.
 */
import { readFile } from 'node:fs/promises';
import { addon } from '../engine/native.ts';

export interface Examination {
  file: string;
  /** Why the constraint was refused; then nothing else is known. */
  refused?: string;
  compileUs?: number;
  /** Per token of all instances, the first time. */
  firstMaskUs?: Spread;
  /** The same again, after that warm-up. */
  maskUs?: Spread;
  accepted: number;
  rejected: number;
  /** Positions in `tests` whose verdict is not `valid`, and the text from where it was refused. */
  wrong: { test: number; valid: boolean; before: string }[];
}

/** Of times in microseconds. */
interface Spread {
  p50: number;
  p99: number;
  max: number;
}

/** Examines constraints over the tokenizer at `path`. */
export interface Examiner {
  examine(kind: string, constraint: string, texts: string[]): string;
}

export function examinerFor(path: string): Examiner {
  return new (addon().NativeGrammars)(path);
}

interface Instance {
  valid: boolean;
  data: unknown;
}

interface Walk {
  accepted: boolean;
  rest: string;
  firstMaskUs: number[];
  maskUs: number[];
}

const textKinds = ['regex', 'ebnf', 'lark', 'structural_tag'];

export async function examineFile(examiner: Examiner, file: string): Promise<Examination> {
  const { kind, constraint, instances } = read(JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>);
  const texts = instances.map(({ data }) => (kind === 'json_schema' ? JSON.stringify(data) : String(data)));
  const result: Examination = { file, accepted: 0, rejected: 0, wrong: [] };
  let seen: { compileUs: number; walks: Walk[] };
  try {
    seen = JSON.parse(examiner.examine(kind, constraint, texts)) as typeof seen;
  } catch (error) {
    return { ...result, refused: (error as Error).message };
  }
  seen.walks.forEach(({ accepted, rest }, test) => {
    const { valid } = instances[test]!;
    result[accepted ? 'accepted' : 'rejected']++;
    if (accepted !== valid) result.wrong.push({ test, valid, before: rest });
  });
  const firstMaskUs = spread(seen.walks.flatMap((walk) => walk.firstMaskUs));
  const maskUs = spread(seen.walks.flatMap((walk) => walk.maskUs));
  return { ...result, compileUs: seen.compileUs, ...(firstMaskUs && { firstMaskUs }), ...(maskUs && { maskUs }) };
}

function read(content: Record<string, unknown>): { kind: string; constraint: string; instances: Instance[] } {
  const { tests = [] } = content;
  const kind = textKinds.find((name) => name in content);
  const instances = tests as Instance[];
  if (kind) return { kind, constraint: text(content[kind]), instances };
  const isBench = 'schema' in content && Array.isArray(tests);
  return {
    kind: 'json_schema',
    constraint: JSON.stringify(isBench ? content.schema : content),
    instances: isBench ? instances : [],
  };
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

function spread(times: number[]): Spread | undefined {
  if (times.length === 0) return undefined;
  times.sort((a, b) => a - b);
  const at = (share: number) => times[Math.floor((times.length - 1) * share)]!;
  return { p50: at(0.5), p99: at(0.99), max: at(1) };
}

/** One line for people. */
export function lineOf({ file, refused, compileUs, maskUs, accepted, rejected, wrong }: Examination): string {
  if (refused !== undefined) return `${file}: refused: ${refused}`;
  const masks = maskUs ? `, masks ${micros(maskUs.p50)} (p50), ${micros(maskUs.p99)} (p99)` : '';
  const counts = `${accepted} accepted, ${rejected} rejected, ${wrong.length} wrong`;
  const told = wrong.map(({ test, valid, before }) => {
    return `\n  test ${test}: ${valid ? `valid, refused before ${JSON.stringify(before)}` : 'invalid, accepted'}`;
  });
  return `${file}: compiled in ${micros(compileUs!)}${masks}, ${counts}${told.join('')}`;
}

function micros(us: number): string {
  return us < 1000 ? `${us.toFixed(1)} µs` : `${(us / 1000).toFixed(1)} ms`;
}
