/** `sglang grammar`: files in, verdicts out; the addon's own masks on the tiny model's tokenizer. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import test from 'ava';
import { runCommand } from '../../src/cli/commands.ts';
import { examinerFor } from '../../src/cli/grammar.ts';
import { tinyModel } from '../engine/fixtures.ts';

function captured() {
  const written: string[] = [];
  const stream = new Writable({ write: (chunk: Buffer, _encoding, done) => (written.push(chunk.toString()), done()) });
  return { stream: stream as unknown as NodeJS.WriteStream, text: () => written.join('') };
}

const files: Record<string, object> = {
  'schema.json': {
    schema: { type: 'array', items: { type: 'integer' }, uniqueItems: true },
    tests: [
      { valid: true, data: [1, 2] },
      { valid: false, data: [1, 1] },
      { valid: false, data: 'a' },
    ],
  },
  'regex.json': {
    regex: '[a-c]+',
    tests: [
      { valid: true, data: 'abc' },
      { valid: true, data: 'abd' },
    ],
  },
  'alone.json': { type: 'object', properties: { schema: { type: 'null' } } },
  'refused.json': { schema: { properties: { a: { type: 'int' } } }, tests: [] },
};

test('each file is compiled and its instances are walked', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'sglang-grammar-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const names = Object.keys(files).map((name) => join(folder, name));
  for (const name of Object.keys(files)) await writeFile(join(folder, name), JSON.stringify(files[name]));
  const run = async (...more: string[]) => {
    const [stdout, stderr] = [captured(), captured()];
    const around = {
      env: process.env,
      stdin: process.stdin,
      stdout: stdout.stream,
      stderr: stderr.stream,
      examinerFor,
    };
    const createEngine = () => t.fail() as never;
    const code = await runCommand(['grammar', ...names, '--tokenizer', tinyModel, ...more], {
      ...around,
      createEngine,
    });
    return { code, out: stdout.text(), err: stderr.text() };
  };
  const plain = await run();
  t.is(plain.code, 1);
  t.is(plain.err, 'sglang: 1 wrong verdicts\n');
  const lines = plain.out.replaceAll(`${folder}/`, '').replaceAll(/[\d.]+ [µm]s/g, 'TIME');
  t.is(
    lines,
    'schema.json: compiled in TIME, masks TIME (p50), TIME (p99), 1 accepted, 2 rejected, 0 wrong\n' +
      'regex.json: compiled in TIME, masks TIME (p50), TIME (p99), 1 accepted, 1 rejected, 1 wrong\n' +
      '  test 1: valid, refused before "d"\n' +
      'alone.json: compiled in TIME, 0 accepted, 0 rejected, 0 wrong\n' +
      'refused.json: refused: sampling_params.json_schema: at "/properties/a/type": expected the name of a type, or a list of names, got "int"\n',
  );
  const objects = (await run('--json')).out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  t.deepEqual(objects[1]!['wrong'], [{ test: 1, valid: true, before: 'd' }]);
  t.is(typeof objects[0]!['compileUs'], 'number');
  t.deepEqual(Object.keys(objects[0]!['firstMaskUs'] as object), ['p50', 'p99', 'max']);
  t.deepEqual(Object.keys(objects[0]!['maskUs'] as object), ['p50', 'p99', 'max']);
  t.is(
    objects[3]!['refused'],
    'sampling_params.json_schema: at "/properties/a/type": expected the name of a type, or a list of names, got "int"',
  );
});
