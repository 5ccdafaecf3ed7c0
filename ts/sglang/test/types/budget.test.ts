/** The programs of `programs.ts` compile, mistakes in them are found, and their types stay cheap for an editor. */
import test, { type ExecutionContext } from 'ava';
import { spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

/** Of the programs' types alone, without what the compiler does for the library's own files. Measured: 34 k (TypeScript 5.9). */
const MOST_INSTANTIATIONS = 36_000;

/** What an editor shows for a mistake in the options of `gen`: it is about the option that is wrong, and names what is right. */
const mistakes: readonly (readonly [code: string, told: RegExp])[] = [
  ["gen('x', { type: 'integer' })", /Type '"integer"' is not assignable to type 'keyof ValueTypes/],
  ["gen('x', { max_tokens: 5 })", /'max_tokens' does not exist in type .* Did you mean to write 'maxTokens'\?/],
  ["gen('x', { maxTokens: '5' })", /Type 'string' is not assignable to type 'number'/],
  ["gen('x', { choices: [] })", /Type '\[\]' is not assignable to type 'readonly \[string, \.\.\.string\[\]\]'/],
  ["gen('x', { type: 'int', regex: /a/ })", /Type 'RegExp' is not assignable to type 'undefined'/],
];

const compiler = createRequire(import.meta.url).resolve('typescript/bin/tsc');

/** Compiles `code` in a folder of its own beside the programs. */
async function compiled(t: ExecutionContext, code: string) {
  const folder = await mkdtemp(fileURLToPath(new URL('compiled-', import.meta.url)));
  t.teardown(() => rm(folder, { recursive: true }));
  await writeFile(`${folder}/code.ts`, code);
  await writeFile(`${folder}/tsconfig.json`, JSON.stringify({ extends: '../tsconfig.json', include: ['code.ts'] }));
  return compile(folder);
}

function compile(project: string) {
  const { stdout, status } = spawnSync(process.execPath, [compiler, '-p', project, '--extendedDiagnostics'], {
    encoding: 'utf8',
  });
  return { stdout, status, instantiations: Number(/^Instantiations:\s+(\d+)/m.exec(stdout)?.[1]) };
}

test('types of programs are right and within their budget', async (t) => {
  const { stdout, status, instantiations } = compile(fileURLToPath(new URL('tsconfig.json', import.meta.url)));
  t.is(status, 0, stdout);
  const library = ['../../../src/index.ts', '../../../src/backends/ai-sdk.ts', 'expect-type', 'zod'];
  const { instantiations: own } = await compiled(t, library.map((file) => `export * from '${file}';`).join('\n'));
  const spent = instantiations - own;
  t.true(spent > 0 && spent <= MOST_INSTANTIATIONS, `${spent} instantiations; at most ${MOST_INSTANTIATIONS}`);
});

test('a mistake in an option is told at that option', async (t) => {
  const lines = mistakes.map(([code]) => `${code};`).join('\n');
  const { stdout } = await compiled(t, `import { gen } from '../../../src/index.ts'; ${lines}`);
  for (const [i, [code, told]] of mistakes.entries()) {
    const errors = stdout.split('\n').filter((line) => line.includes(`code.ts(${i + 1},`));
    t.is(errors.length, 1, `${code}: ${stdout}`);
    t.regex(errors[0]!, told);
  }
});
