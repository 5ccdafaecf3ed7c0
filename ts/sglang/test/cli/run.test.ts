/** `sglang run`: rows in, rows out; what is finished stays finished, whatever happens to the rest. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { startNode } from '../node-process.ts';

const cli = fileURLToPath(new URL('with-fake-engine.ts', import.meta.url));
const programs = fileURLToPath(new URL('programs/', import.meta.url));
const folder = mkdtempSync(path.join(tmpdir(), 'sglang-run-'));
test.after.always(() => rmSync(folder, { recursive: true }));

let count = 0;
const newFile = (end = 'jsonl') => path.join(folder, `${count++}.${end}`);

function rowsFile(...rows: unknown[]): string {
  const file = newFile();
  writeFileSync(file, rows.map((row) => (typeof row === 'string' ? row : JSON.stringify(row))).join('\n'));
  return file;
}

function start(t: ExecutionContext, program: string, args: string[], env: Record<string, string> = {}) {
  const command = ['--import=tsx', cli, 'run', `${programs}${program}.ts`, ...args];
  return startNode(t, command, { env: { ...process.env, ...env } });
}

const run = (...given: Parameters<typeof start>) => start(...given).end;
const countries = ['France', 'Japan', 'Peru'].map((country) => ({ country }));
const line = (row: number, capital: string) => `${JSON.stringify({ row, args: countries[row], vars: { capital } })}\n`;

test('rows become lines, in order, and a pipe gets nothing else', async (t) => {
  const args = ['--input', rowsFile(...countries), '--concurrency', '1'];
  t.deepEqual(await run(t, 'capitals', args), {
    code: 0,
    out: line(0, ' Paris') + line(1, ' Tokyo') + line(2, ' Lima'),
    err: '',
  });
});

test('without rows the program runs once', async (t) => {
  const { out } = await run(t, 'capitals', []);
  t.deepEqual(JSON.parse(out), { row: 0, args: {}, vars: { capital: ' Paris' } });
});

test('failed rows are told; the others are kept, and not computed again', async (t) => {
  const [input, output] = [rowsFile(...countries), newFile()];
  const args = ['--input', input, '--output', output];
  const failed = await run(t, 'capitals', args, { FAIL: 'of Japan' });
  t.is(failed.code, 1);
  t.regex(failed.err, /^sglang: 1 of 3 rows failed; the same command tries them again\n {2}row 1: .*out of ink\n$/);
  t.is(readFileSync(output, 'utf8').split('\n').length, 3);
  const again = await run(t, 'capitals', args, { FAIL: 'of France' });
  t.deepEqual(again, { code: 0, out: '', err: '' });
  t.is(readFileSync(output, 'utf8'), line(0, ' Paris') + line(1, ' Tokyo') + line(2, ' Lima'));
  t.is((await run(t, 'capitals', args, { FAIL: 'capital' })).code, 0, 'nothing is left to do');
});

test('an interrupted run goes on where it was', async (t) => {
  const output = newFile();
  const args = ['--input', rowsFile(...countries), '--output', output, '--concurrency', '1'];
  const { child, end } = start(t, 'capitals', args, { STUCK: 'of Peru' });
  while (!existsSync(output) || readFileSync(output, 'utf8') !== line(0, ' Paris') + line(1, ' Tokyo')) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  child.kill('SIGINT');
  const { code, err } = await end;
  t.is(code, 1);
  t.is(err, `sglang: stopped by SIGINT; 2 of 3 rows are in ${output}\n`);
  writeFileSync(output, readFileSync(output, 'utf8').slice(0, -10));
  t.is((await run(t, 'capitals', args, { FAIL: 'of France' })).code, 0, 'the broken line is computed anew');
  t.is(readFileSync(output, 'utf8'), line(0, ' Paris') + line(1, ' Tokyo') + line(2, ' Lima'));
});

test('a trace is a page, or printed', async (t) => {
  const page = newFile('html');
  t.is((await run(t, 'capitals', ['--trace', page])).code, 0);
  t.regex(readFileSync(page, 'utf8'), /gen capital/);
  t.regex((await run(t, 'capitals', ['--trace', '-'])).err, /^run program .*\n└ gen capital .*" Paris"\n$/);
});

test('a program without a backend of its own runs on the model', async (t) => {
  const { code, out, err } = await run(t, 'several', ['--export', 'second']);
  t.deepEqual([code, JSON.parse(out), err], [0, { row: 0, args: {}, vars: {} }, '']);
});

const mistakes: [program: string, args: string[], message: RegExp][] = [
  ['none', [], /none\.ts exports no program, only capital; write: export const name = fn\(/],
  ['several', [], /several\.ts exports several programs; choose one with --export: first, second\n$/],
  ['several', ['--export', 'third'], /several\.ts exports no program "third"; its programs: first, second\n$/],
  ['broken', [], /broken\.ts: no key\n$/],
  ['missing', [], /missing\.ts: Cannot find module/],
  ['capitals', ['--input', 'none.jsonl'], /none\.jsonl: ENOENT/],
  ['capitals', ['--input', rowsFile({}, '[1]')], /\.jsonl:2: expected a JSON object .*, got \[1\]\n$/],
  ['capitals', ['--concurrency', '0'], /--concurrency: expected a whole number ≥ 1/],
];

for (const [program, args, message] of mistakes) {
  test(`a mistake is told in a line: ${program} ${message.source}`, async (t) => {
    const { code, out, err } = await run(t, program, args);
    t.deepEqual([code, out], [2, '']);
    t.regex(err, message);
    t.is(err.trimEnd().split('\n').length, 1, err);
  });
}

test('an output of other rows is not mixed with these', async (t) => {
  const output = newFile();
  await run(t, 'capitals', ['--input', rowsFile(...countries), '--output', output]);
  const { code, err } = await run(t, 'capitals', ['--input', rowsFile(countries[1]), '--output', output]);
  t.is(code, 2);
  t.regex(err, /\.jsonl:1: made of other arguments than row 0 has now; give another --output, or remove it\n$/);
});
