/** The programs of `programs.ts` compile, mistakes in them are found, and their types stay cheap for an editor. */
import test from 'ava';
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

/** Measured: 59 k instantiations (TypeScript 5.9), 5 k of them for the types of the AI SDK. */
const MOST_INSTANTIATIONS = 60_000;

/** What an editor shows for a mistake in the options of `gen`: it is about the option that is wrong, and names what is right. */
const mistakes: readonly (readonly [code: string, told: RegExp])[] = [
  ["gen('x', { type: 'integer' })", /Type '"integer"' is not assignable to type 'keyof ValueTypes/],
  ["gen('x', { max_tokens: 5 })", /'max_tokens' does not exist in type .* Did you mean to write 'maxTokens'\?/],
  ["gen('x', { maxTokens: '5' })", /Type 'string' is not assignable to type 'number'/],
  ["gen('x', { choices: [] })", /Type '\[\]' is not assignable to type 'readonly \[string, \.\.\.string\[\]\]'/],
  ["gen('x', { type: 'int', regex: /a/ })", /Type 'RegExp' is not assignable to type 'undefined'/],
];

const compiler = createRequire(import.meta.url).resolve('typescript/bin/tsc');

test('types of programs are right and within their budget', (t) => {
  const project = fileURLToPath(new URL('tsconfig.json', import.meta.url));
  const { stdout, status } = spawnSync(process.execPath, [compiler, '-p', project, '--extendedDiagnostics'], {
    encoding: 'utf8',
  });
  t.is(status, 0, stdout);
  const instantiations = Number(/^Instantiations:\s+(\d+)/m.exec(stdout)?.[1]);
  t.true(instantiations <= MOST_INSTANTIATIONS, `${instantiations} instantiations; at most ${MOST_INSTANTIATIONS}`);
});

test('a mistake in an option is told at that option', async (t) => {
  const folder = await mkdtemp(fileURLToPath(new URL('mistakes-', import.meta.url)));
  t.teardown(() => rm(folder, { recursive: true }));
  const lines = mistakes.map(([code]) => `${code};`).join('\n');
  await writeFile(`${folder}/gen.ts`, `import { gen } from '../../../src/index.ts'; ${lines}`);
  await writeFile(`${folder}/tsconfig.json`, JSON.stringify({ extends: '../tsconfig.json', include: ['gen.ts'] }));
  const { stdout } = spawnSync(process.execPath, [compiler, '-p', folder], { encoding: 'utf8' });
  for (const [i, [code, told]] of mistakes.entries()) {
    const errors = stdout.split('\n').filter((line) => line.includes(`gen.ts(${i + 1},`));
    t.is(errors.length, 1, `${code}: ${stdout}`);
    t.regex(errors[0]!, told);
  }
});
