/** The programs of `programs.ts` compile, mistakes in them are found, and their types stay cheap for an editor. */
import test from 'ava';
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

/** Measured: 57 k instantiations (TypeScript 5.9), 5 k of them for the types of the AI SDK. */
const MOST_INSTANTIATIONS = 58_000;

test('types of programs are right and within their budget', (t) => {
  const compiler = createRequire(import.meta.url).resolve('typescript/bin/tsc');
  const project = fileURLToPath(new URL('tsconfig.json', import.meta.url));
  const { stdout, status } = spawnSync(process.execPath, [compiler, '-p', project, '--extendedDiagnostics'], {
    encoding: 'utf8',
  });
  t.is(status, 0, stdout);
  const instantiations = Number(/^Instantiations:\s+(\d+)/m.exec(stdout)?.[1]);
  t.true(instantiations <= MOST_INSTANTIATIONS, `${instantiations} instantiations; at most ${MOST_INSTANTIATIONS}`);
});
