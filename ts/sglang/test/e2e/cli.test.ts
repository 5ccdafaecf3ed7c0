/** The built command in plain Node, as a user has it: a program in TypeScript, on the default model. */
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { defaultModel } from '../engine/fixtures.ts';
import { outputOf } from '../node-process.ts';

const at = (relative: string) => fileURLToPath(new URL(`../../../../${relative}`, import.meta.url));

test('the smallest program answers', async (t) => {
  const args = ['--import=tsx', at('examples/quick_start/hello.ts')];
  t.regex((await outputOf(t, args)).stdout, /Paris/);
});

test('sglang run loads TypeScript and runs it on the model', async (t) => {
  const flags = ['--export', 'tipSuggestion', '--max-new-tokens', '8', '--temperature', '0'];
  const args = [at('ts/sglang/dist/cli.js'), 'run', at('examples/quick_start/parallel.ts'), ...flags];
  const { stdout } = await outputOf(t, [...args, '--model-path', defaultModel]);
  const { row, vars } = JSON.parse(stdout) as { row: number; vars: { summary: string } };
  t.is(row, 0);
  t.true(vars.summary.length > 0);
});
