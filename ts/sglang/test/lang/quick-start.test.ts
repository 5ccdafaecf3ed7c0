/** The examples of the README as a user starts them, on canned answers: what they print. */
import test, { type ExecutionContext } from 'ava';
import { fileURLToPath } from 'node:url';
import { outputOf } from '../node-process.ts';

const examples = fileURLToPath(new URL('../../../../examples/', import.meta.url));

/** Runs an example against the sources, not the build. */
function start(t: ExecutionContext, name: string, backend: string): Promise<{ stdout: string; stderr: string }> {
  const env = { ...process.env, SGLANG_BACKEND: backend, TSX_TSCONFIG_PATH: `${examples}tsconfig.json` };
  return outputOf(t, ['--import=tsx', `quick_start/${name}.ts`], { cwd: examples, env });
}

const printed: Record<string, string> = {
  multi_turn: `system: You are a helpful assistant.
user: What is the capital of the United States?
assistant: Washington, D.C.
user: List two local attractions.
assistant: The National Mall and the Lincoln Memorial.
`,
  control_flow: 'calculator: 6 * 7\n',
  parallel: `Here are two tips for staying healthy: 1. Balanced Diet. 2. Regular Exercise.

Tip 1:Eat a bit of everything.
Tip 2:Walk every day.
In summary, eat well and move.
`,
  image_qa: 'A small red square.\n',
  constrained: '8.8.8.8\n',
  batch: `Q: What is the capital of the United Kingdom?
A: London
Q: What is the capital of France?
A: Paris
Q: What is the capital of Japan?
A: Tokyo
`,
  streaming: `Q: What is the capital of France?
A: Paris
`,
};

for (const [name, expected] of Object.entries(printed)) {
  test(`${name} prints what its program makes`, async (t) =>
    t.deepEqual(await start(t, name, 'fake'), { stdout: expected, stderr: '' }));
}

test('an unknown backend is told with what is known', async (t) => {
  const error = await t.throwsAsync(start(t, 'streaming', 'nowhere'));
  t.regex(error!.message, /SGLANG_BACKEND=nowhere: expected fake, engine, http:\/\/…, or openai:<model>/);
});
