/** Every row of the language's table on every backend: the same program binds the same and says the same. */
import test from 'ava';
import { z } from 'zod';
import { assistant, fn, gen, genInt, image, select, user, type GenerateOptions } from '../../src/index.ts';
import { everyBackend } from './every-backend.ts';

const ask = fn((s, { q }: { q: string }) => s.user(q).assistant(gen('answer', { stop: '\n' })));

/** Turns as methods, expressions and blocks; a fork, a copy, a nested program, a loop on generated values; typed values. */
const everything = fn(async (s, { first, second }: { first: string; second: string }) => {
  const head = s.system`Be kind.`(
    user(image(new Uint8Array([0x89, 0x50, 0x4e, 0x47])), first),
    assistant(gen('a', { stop: '\n' })),
  );
  const [one, two] = head.fork(2);
  one.user('q3').assistant(gen('branch', { stop: '\n' }));
  two.user(second).assistant(gen('branch', { stop: '\n' }));
  const branches = await Promise.all([one.get('branch' as never), two.get('branch' as never)]);
  const copied = await head.copy(async (c) => (await ask(c, { q: 'q5' })).vars.answer);
  const seen: string[] = [];
  for (let i = 6; i < 8; i++) seen.push(await ask(s, { q: `q${i}` }).get('answer'));
  return head
    .user((u) => void u`${branches.join()} ${copied} ${seen.join()}: a number`)
    .assistant(genInt('n'))
    .user('a colour')
    .assistant(select('color', ['red', 'blue', 'green']))
    .user('a thing')
    .assistant(gen('thing', { schema: z.object({ ok: z.boolean() }) }));
});

const expected = { a: 'answer 1', answer: 'answer 7', n: 7, color: 'blue', thing: { ok: true } };
const said = 'answer 3,answer 2 answer 5 answer 6,answer 7: a number';

for (const [name, backendOf] of Object.entries(everyBackend)) {
  test(`${name} runs every construct of the language`, async (t) => {
    const backend = await backendOf(t);
    const run = everything.bind({ first: 'q1' }).run({ second: 'q2' }, { backend, temperature: 0 });
    const pieces: string[] = [];
    for await (const delta of run.textStream('a')) pieces.push(delta);
    t.is(pieces.join(''), 'answer 1');
    const result = await run;
    t.deepEqual<object, object>(result.vars, expected);
    t.deepEqual(
      result.messages().map(({ role, content }) => `${role}: ${content}`),
      [
        'system: Be kind.',
        'user: <image>q1',
        'assistant: answer 1',
        'user: q6',
        'assistant: answer 6',
        'user: q7',
        'assistant: answer 7',
        `user: ${said}`,
        'assistant: 7',
        'user: a colour',
        'assistant: blue',
        'user: a thing',
        'assistant: {"ok":true}',
      ],
    );
    t.true(result.text().includes(said));
    for (const variable of ['a', 'n', 'color', 'thing'] as const) {
      t.true(result.meta(variable).promptTokens > 0, `${variable} has its count of tokens`);
    }
    const events: (string | null)[] = [];
    for await (const event of run.events()) events.push(event.name);
    t.deepEqual([...new Set(events)], [null, 'a', 'answer', 'n', 'color', 'thing']);
  });

  test(`${name} runs batches, and an abort ends a run`, async (t) => {
    const backend = await backendOf(t);
    const states = await ask.runBatch([{ q: 'q1' }, { q: 'q2' }, { q: 'q3' }], { backend, concurrency: 2 });
    t.deepEqual(
      states.map(({ vars }) => vars.answer),
      ['answer 1', 'answer 2', 'answer 3'],
    );
    await t.throwsAsync(async () => ask.run({ q: 'q1' }, { backend, signal: AbortSignal.abort() }), {
      name: 'AbortError',
    });
    const run = ask.run({ q: 'q1' }, { backend });
    await t.throwsAsync(
      async () => {
        for await (const { name: variable } of run.events()) if (variable === 'answer') run.abort();
      },
      { name: 'AbortError' },
    );
  });
  test(`${name} says whole what it streams`, async (t) => {
    const backend = await backendOf(t);
    const turn = (content: string) => ({ role: 'user', content: [content], open: false }) as const;
    const begun = { role: 'assistant', content: ['It is '], open: true } as const;
    const asked: GenerateOptions[] = [{}, { stop: ['\n'] }, { maxTokens: 1 }, { valueType: 'int', regex: '[0-9]+' }];
    for (const [i, options] of asked.entries()) {
      const ask = async (whole: boolean) => {
        const prompt = [turn(options.valueType ? 'a number' : `q${i}`), begun];
        const pieces = await collected(backend.stream(prompt, { ...options, temperature: 0, whole }));
        return { text: pieces.map(({ text }) => text).join(''), meta: pieces.at(-1)!.meta };
      };
      const streamed = await ask(false);
      t.deepEqual(await ask(true), streamed, JSON.stringify(options));
      t.regex(streamed.text, options.valueType ? /^7$/ : /^answer/);
    }
  });
}

async function collected<T>(source: AsyncIterable<T>): Promise<T[]> {
  const pieces: T[] = [];
  for await (const piece of source) pieces.push(piece);
  return pieces;
}
