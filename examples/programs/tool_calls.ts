/** Tool calls of one's own: the tool and its arguments are held to a schema; the result goes back as a turn. */
import { fn, gen, select } from 'sglang';
import { z } from 'zod';
import { runAsMain } from '../backend.ts';

// #region program
const tools = {
  add: { args: z.object({ a: z.int(), b: z.int() }), run: ({ a, b }: { a: number; b: number }) => a + b },
  multiply: { args: z.object({ a: z.int(), b: z.int() }), run: ({ a, b }: { a: number; b: number }) => a * b },
};

const shots = [
  ['What is 2 plus 3?', '{"tool": "add", "args": {"a":2,"b":3}}', 5, '2 plus 3 is 5.'],
  ['What is 4 times 5?', '{"tool": "multiply", "args": {"a":4,"b":5}}', 20, '4 times 5 is 20.'],
] as const;

export const withTools = fn(async (s, { question }: { question: string }) => {
  s.system`You answer with the help of the tools add and multiply.`;
  for (const [q, call, result, answer] of shots) s.user(q).assistant(call).user(`Result: ${result}`).assistant(answer);
  s.user(question);
  const call = s.assistant(async (a) => {
    const t = a`{"tool": "${select('tool', ['add', 'multiply'])}", "args": `;
    return t`${gen('args', { schema: tools[await t.get('tool')].args, maxTokens: 32 })}}`;
  });
  const { tool, args } = (await call).vars;
  const result = tools[tool].run(args);
  return s.user(`Result: ${result}`).assistant(gen('answer', { maxTokens: 24, stop: '\n' }));
});
// #endregion program

export async function main(): Promise<void> {
  const state = await withTools.run({ question: 'What is 6 times 7?' }, { temperature: 0 });
  for (const { role, content } of state.messages().slice(-4)) console.log(`${role}: ${content}`);
}

await runAsMain(import.meta.url, main);
