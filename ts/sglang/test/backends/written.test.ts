/** The backend that the documentation writes: it is the code shown there, and programs run on it. */
import { readFileSync } from 'node:fs';
import test from 'ava';
import { z } from 'zod';
import { fn, gen, select } from '../../src/index.ts';
import { Ollama } from './ollama.ts';
import { scriptedServer } from './scripted-server.ts';

const read = (file: string) => readFileSync(new URL(file, import.meta.url), 'utf8');

test('the page shows code that is compiled, and the very backend that is tried here', (t) => {
  const code = [read('ollama.ts'), read('../types/guide.ts')]
    .join('\n')
    .replaceAll(/'[^']*\/src\/index\.ts'/g, "'sglang'");
  const compiled = code.replace("'../../src/backends/ai-sdk.ts'", "'sglang/ai-sdk'");
  const shown = [...read('../../../../docs/guide/backends.md').matchAll(/```ts\n(.*?)```/gs)].map(
    ([, block]) => block!,
  );
  t.is(shown.length, 4);
  for (const block of shown.flatMap((text) => (text.includes('class') ? [text] : text.split('\n\n'))))
    t.true(compiled.includes(block.trim()), block);
});

test('programs run on it', async (t) => {
  const replies = ['Paris', '{"n": 7}', '"web browser"'];
  const { url, asked } = await scriptedServer(t, (_, nth) => {
    const reply = replies[nth]!;
    const end = { done: true, done_reason: 'stop', prompt_eval_count: 9, eval_count: 2, message: { content: '' } };
    return { lines: [...[...reply].map((content) => ({ message: { content }, done: false })), end] };
  });
  const program = fn((s) =>
    s
      .system('Be brief.')
      .user('The capital?')
      .assistant(gen('city', { stop: '\n', temperature: 0 }), gen('o', { schema: z.object({ n: z.int() }) }))
      .user('How?')
      .assistant(select('tool', ['calculator', 'web browser'])),
  );
  const run = program.run({}, { backend: new Ollama('m', url) });
  const pieces: string[] = [];
  for await (const piece of run.textStream('city')) pieces.push(piece);
  t.deepEqual(pieces, [...'Paris']);
  const result = await run;
  t.deepEqual(result.vars, { city: 'Paris', o: { n: 7 }, tool: 'web browser' });
  t.deepEqual(result.meta('city'), { promptTokens: 9, completionTokens: 2, cachedTokens: 0, finishReason: 'stop' });
  t.deepEqual(asked[1]!.body.messages, [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'The capital?' },
    { role: 'assistant', content: 'Paris' },
  ]);
  const regex = fn((s) => s.user('x').assistant(gen('a', { regex: /a/ })));
  await t.throwsAsync(async () => regex.run({}, { backend: new Ollama('m', url) }), { message: /no regex/ });
});
