/** The programs of the language's page, on the fake backend: what they bind, what the model is asked, what they say. */
import test from 'ava';
import { z } from 'zod';
import { FakeBackend, assistant, fn, gen, genInt, genString, image, select, system, user } from '../../src/index.ts';

test('several turns: each generation sees the turns before it', async (t) => {
  const backend = new FakeBackend({
    replies: [
      ['capital', 'Washington.'],
      ['attractions', 'The Mall.'],
    ],
  });
  const multiTurn = fn((s, q: { q1: string; q2: string }) =>
    s.system`You are a helpful assistant.`
      .user(q.q1)
      .assistant(gen('answer1', { maxTokens: 256 }))
      .user(q.q2)
      .assistant(gen('answer2', { maxTokens: 256 })),
  );
  const state = await multiTurn.run({ q1: 'The capital?', q2: 'Two attractions?' }, { backend });
  t.deepEqual(state.vars, { answer1: 'Washington.', answer2: 'The Mall.' });
  t.deepEqual(state.messages(), [
    { role: 'system', content: 'You are a helpful assistant.' },
    { role: 'user', content: 'The capital?' },
    { role: 'assistant', content: 'Washington.' },
    { role: 'user', content: 'Two attractions?' },
    { role: 'assistant', content: 'The Mall.' },
  ]);
  t.deepEqual(
    backend.calls.map(({ prompt }) => prompt),
    [
      'system: You are a helpful assistant.\nuser: The capital?\nassistant:',
      'system: You are a helpful assistant.\nuser: The capital?\nassistant: Washington.\nuser: Two attractions?\nassistant:',
    ],
  );
  t.is(state.text(), `${backend.calls[1]!.prompt} The Mall.\n`);
});

const controlFlow = fn(async (s, { question }: { question: string }) => {
  const t = s`To answer: ${question}, I need a ${select('tool', ['calculator', 'web browser'])}. `;
  if ((await t.get('tool')) === 'calculator') return t`The math expression is${gen('expression')}`;
  return t`The website url is${gen('url')}`;
});

for (const [tool, variable, reply] of [
  ['calculator', 'expression', ' 2+2'],
  ['web browser', 'url', ' http://a.b'],
] as const) {
  test(`control flow: ${tool} leads to ${variable}`, async (t) => {
    const backend = new FakeBackend({
      replies: [
        ['I need a ', tool],
        [/expression is|url is/, reply],
      ],
    });
    const { vars, text } = await controlFlow.run({ question: 'x' }, { backend });
    t.deepEqual(vars, { tool, [variable]: reply } as never);
    t.truthy(text);
    t.deepEqual(backend.calls[0]!.choices, ['calculator', 'web browser']);
  });
}

test('parallelism: branches share the head and do not see one another', async (t) => {
  const backend = new FakeBackend({
    replies: [
      ['tip 1', 'Eat.'],
      ['tip 2', 'Run.'],
      ['In summary', ' both.'],
    ],
  });
  const tips = fn(async (s) => {
    const head = s`Two tips.\n`;
    const [a, b] = head.fork(2);
    const [t1, t2] = await Promise.all([a`Expand tip 1:${gen('tip')}`, b`Expand tip 2:${gen('tip')}`]);
    return head`1:${t1.vars.tip}\n2:${t2.vars.tip}\nIn summary${gen('summary')}`;
  });
  const result = await tips.run({}, { backend });
  t.is(result.text(), 'Two tips.\n1:Eat.\n2:Run.\nIn summary both.');
  t.deepEqual(
    backend.calls.map(({ kind, prompt }) => `${kind} ${prompt}`),
    [
      'warm Two tips.\n',
      'stream Two tips.\nExpand tip 1:',
      'stream Two tips.\nExpand tip 2:',
      'stream Two tips.\n1:Eat.\n2:Run.\nIn summary',
    ],
  );
});

test('images stand in their turn, and the text shows where', async (t) => {
  const backend = new FakeBackend({ replies: [['?', 'A cat.']] });
  const imageQa = fn((s, { file, question }: { file: string; question: string }) =>
    s.user(image(file), question).assistant(gen('answer')),
  );
  const result = await imageQa.run({ file: 'cat.png', question: 'What?' }, { backend });
  t.deepEqual(backend.calls[0]!.turns[0]!.content, [{ image: 'cat.png' }, 'What?']);
  t.deepEqual(result.messages()[0], { role: 'user', content: '<image>What?' });
});

test('constraints reach the backend: regex, ebnf, lark, stop, sampling', async (t) => {
  const backend = new FakeBackend({
    replies: [
      ['A: ', '8.8.8.8'],
      ['B: ', 'x'],
    ],
  });
  await fn(
    (s) =>
      s`A: ${gen('ip', { temperature: 0, regex: /^(\d{1,3}\.){3}\d{1,3}$/i })}B: ${gen('e', { ebnf: 'root ::= "x"' })}B: ${gen('l', { lark: 'start: "x"' })}`,
  ).run({}, { backend, topP: 0.5, temperature: 1, stop: 'END' });
  const [first, second, third] = backend.calls.map(({ options }) => ({ ...options, signal: undefined }));
  t.deepEqual(first, {
    topP: 0.5,
    temperature: 0,
    regex: '(?i)(\\d{1,3}\\.){3}\\d{1,3}',
    stop: ['END'],
    signal: undefined,
  });
  t.deepEqual(second, { topP: 0.5, temperature: 1, ebnf: 'root ::= "x"', stop: ['END'], signal: undefined });
  t.deepEqual(third, { topP: 0.5, temperature: 1, lark: 'start: "x"', stop: ['END'], signal: undefined });
});

test('a schema is grammar, validator and type: the value is what validation gives out', async (t) => {
  const City = z.object({ name: z.string().transform((name) => name.toUpperCase()), inhabitants: z.int() });
  const city = fn((s, { q }: { q: string }) => s.user(q).assistant(gen('city', { schema: City })));
  const backend = new FakeBackend({ replies: [['Paris', '{"name": "Paris", "inhabitants": 2100000}']] });
  const result = await city.run({ q: 'Paris' }, { backend });
  t.deepEqual(result.vars.city, { name: 'PARIS', inhabitants: 2100000 });
  const { jsonSchema } = backend.calls[0]!.options as { jsonSchema: string };
  t.like(JSON.parse(jsonSchema), {
    type: 'object',
    properties: { name: { type: 'string' } },
    required: ['name', 'inhabitants'],
    additionalProperties: false,
  });
  t.is(result.messages()[1]!.content, '{"name": "Paris", "inhabitants": 2100000}');
});

test('typed values are values, and the text stays the text', async (t) => {
  const backend = new FakeBackend({
    replies: [
      ['a=', '7 more'],
      ['b=', '-1.5\n'],
      ['c=', 'True'],
      ['d=', '"x y"'],
      ['e=', '9'],
    ],
  });
  const typed = fn(
    (s) =>
      s`a=${gen('a', { type: 'int' })};b=${gen('b', { type: 'float' })};c=${gen('c', { type: 'bool' })};d=${genString('d')};e=${genInt('e')}`,
  );
  const { vars, ...result } = await typed.run({}, { backend });
  t.deepEqual(vars, { a: 7, b: -1.5, c: true, d: 'x y', e: 9 });
  t.truthy(result);
  t.is((await typed.run({}, { backend })).text(), 'a=7;b=-1.5;c=True;d="x y";e=9');
});

test('roles are expressions too', async (t) => {
  const backend = new FakeBackend({ replies: [['hi', 'hello']] });
  const result = await fn((s) => s(system`Be ${'kind'}.`, user('hi'), assistant(gen('a')))).run({}, { backend });
  t.is(result.text(), 'system: Be kind.\nuser: hi\nassistant: hello\n');
  t.is(result.vars.a, 'hello');
});

test('blocks: what the body adds stands in the turn, whatever it waits for', async (t) => {
  const backend = new FakeBackend({
    replies: [
      ['one', '1'],
      ['two', '2'],
      ['end', '3'],
    ],
  });
  const program = fn(
    (s) =>
      s.user(async (u) => {
        const first = await u`one ${gen('a')}`.get('a');
        return u` then ${first} two ${gen('b')}`;
      }).assistant`end ${gen('c')}`,
  );
  const result = await program.run({}, { backend });
  t.is(result.text(), 'user: one 1 then 1 two 2\nassistant: end 3\n');
  t.deepEqual(result.vars, { a: '1', b: '2', c: '3' });
});

test('a block is over when all it added is done, also if its body waits for nothing', async (t) => {
  const backend = new FakeBackend({
    replies: [
      ['one', '1'],
      ['end', '2'],
    ],
  });
  const program = fn((s) => s.user((u) => void u`one ${gen('a')}`).assistant`end ${gen('c')}`);
  t.is((await program.run({}, { backend })).text(), 'user: one 1\nassistant: end 2\n');
});

test('a program is callable on a state, and the state goes on after it', async (t) => {
  const backend = new FakeBackend({
    replies: [
      ['Q: ', 'yes'],
      ['so ', 'done'],
    ],
  });
  const ask = fn(async (s, { q }: { q: string }) => {
    await Promise.resolve();
    return s`Q: ${q} ${gen('answer')}`;
  });
  const outer = fn(async (s) => {
    const { vars } = await ask(s`Start. `, { q: 'now?' });
    return s` and ${vars.answer}, so ${gen('end')}`;
  });
  const result = await outer.run({}, { backend });
  t.is(result.text(), 'Start. Q: now? yes and yes, so done');
  const chained = fn((s) => ask(s, { q: 'chained?' })` so ${gen('end')}`);
  t.deepEqual((await chained.run({}, { backend })).vars, { answer: 'yes', end: 'done' });
});

test('bind gives arguments ahead', async (t) => {
  const backend = new FakeBackend({ replies: [[/./, 'x']] });
  const program = fn((s, { a, b }: { a: string; b: string }) => s`${a}+${b}=${gen('c')}`);
  t.is((await program.bind({ a: '1' }).bind({ b: '2' }).run({}, { backend })).text(), '1+2=x');
});

test('loops mutate one state; a name bound again has its new value', async (t) => {
  let count = 0;
  const backend = new FakeBackend({ replies: [['n=', () => `${++count}`]] });
  const program = fn(async (s) => {
    const seen: string[] = [];
    for (let i = 0; i < 3; i++) seen.push(await s`n=${gen('n')};`.get('n'));
    t.deepEqual(seen, ['1', '2', '3']);
    return s`${gen('n')}`;
  });
  t.is((await program.run({}, { backend })).text(), 'n=1;n=2;n=3;4');
});

test('meta tells tokens and why a generation ended', async (t) => {
  const backend = new FakeBackend({ replies: [['Q', 'one two three']] });
  const result = await fn((s) => s`Q ${gen('a', { maxTokens: 2 })}`).run({}, { backend });
  t.deepEqual(result.meta('a'), { promptTokens: 1, completionTokens: 2, cachedTokens: 0, finishReason: 'length' });
  t.throws(() => result.meta('b' as 'a'), { message: 'there is no variable "b"; generated: a' });
});
