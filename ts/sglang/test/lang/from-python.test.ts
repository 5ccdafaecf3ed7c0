/** The table of `docs/guide/from-python.md`, row by row: all ways to write a thing say the same, and what is asked arrives. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import test from 'ava';
import { z } from 'zod';
import { imageUrl } from '../../src/backends/image-source.ts';
import {
  FakeBackend,
  assistant,
  flushCache,
  fn,
  gen,
  genInt,
  genString,
  select,
  setDefaultBackend,
  system,
  user,
  type GenerateOptions,
  type GenOptions,
} from '../../src/index.ts';
import { temporaryFolder } from '../models/fixtures.ts';

const backend = () =>
  new FakeBackend({
    replies: [
      ['A:', 'one'],
      ['n=', '7'],
      ['s=', '"x y"'],
      ['like', 'tea'],
      ['Q', 'yes'],
    ],
  });

const sameTurns = {
  'calls in a chain': fn((s) => s.system('Be kind.').user('Q').assistant('A:', gen('a'))),
  tags: fn((s) => s.system`Be kind.`.user`Q`.assistant`A:${gen('a')}`),
  expressions: fn((s) => s(system('Be kind.'), user`Q`, assistant('A:', gen('a')))),
  'blocks, as `with` in Python': fn((s) =>
    s
      .system((turn) => void turn`Be kind.`)
      .user(async (turn) => turn`Q`)
      .assistant(async (turn) => {
        turn`A:`;
        await Promise.resolve();
        return turn(gen('a'));
      }),
  ),
  'statements, as += in Python': fn((s) => {
    s.system('Be kind.');
    s.user('Q');
    s(assistant`A:${gen('a')}`);
    return s as never;
  }),
};
for (const [name, program] of Object.entries(sameTurns)) {
  test(`roles written as ${name}`, async (t) => {
    const result = await program.run({}, { backend: backend() });
    t.is(result.text(), 'system: Be kind.\nuser: Q\nassistant: A:one\n');
    t.deepEqual(result.vars as object, { a: 'one' });
  });
}

test('text and gen: a tag and a call say the same, and every call gives the same state', async (t) => {
  const tag = fn((s) => s`text A:${gen('a')}`);
  const call = fn((s) => s('text A:', gen('a')));
  const [one, other] = await Promise.all([tag, call].map((program) => program.run({}, { backend: backend() })));
  t.is(one!.text(), 'text A:one');
  t.is(other!.text(), one!.text());
  const same = fn((s) => {
    const all = [s`x`, s('y'), s.append`z`, s.user`u`, s.system('v'), s.assistant(gen('a'))];
    t.true(all.every((state) => (state as unknown) === s));
    return s;
  });
  await same.run({}, { backend: backend() });
});

test('s["x"], text, messages and meta: awaited on a state, plain on a result', async (t) => {
  const seen: unknown[] = [];
  const program = fn(async (s) => {
    const state = s.user`Q`.assistant`A:${gen('a')}`;
    seen.push(await state.get('a'), await state.text(), await state.messages(), await state.meta('a'));
    return state;
  });
  const result = await program.run({}, { backend: backend() });
  t.deepEqual(seen, [result.get('a'), result.text(), result.messages(), result.meta('a')]);
  t.deepEqual(result.messages(), [
    { role: 'user', content: 'Q' },
    { role: 'assistant', content: 'A:one' },
  ]);
});

test('an option that is undefined leaves the default of the run', async (t) => {
  const own = backend();
  await fn((s) => s`Q A:${gen('a', { maxTokens: undefined, topP: 0.5 })}`).run({}, { backend: own, maxTokens: 3 });
  t.like(own.calls.at(-1)!.options, { maxTokens: 3, topP: 0.5 });
});

const options: readonly (readonly [GenOptions, GenerateOptions])[] = [
  [{ maxTokens: 5 }, { maxTokens: 5 }],
  [{ minTokens: 2 }, { minTokens: 2 }],
  [{ stop: 'x' }, { stop: ['x'] }],
  [{ stop: ['x', 'y'] }, { stop: ['x', 'y'] }],
  [{ stopTokenIds: [3] }, { stopTokenIds: [3] }],
  [{ temperature: 0.5 }, { temperature: 0.5 }],
  [{ topP: 0.9 }, { topP: 0.9 }],
  [{ topK: 40 }, { topK: 40 }],
  [{ minP: 0.1 }, { minP: 0.1 }],
  [{ frequencyPenalty: 1 }, { frequencyPenalty: 1 }],
  [{ presencePenalty: 1 }, { presencePenalty: 1 }],
  [{ repetitionPenalty: 1.1 }, { repetitionPenalty: 1.1 }],
  [{ seed: 3 }, { seed: 3 }],
  [{ ignoreEos: true }, { ignoreEos: true }],
  [{ logprobs: true }, { returnLogprob: true, topLogprobsNum: 0 }],
  [{ logprobs: 3 }, { returnLogprob: true, topLogprobsNum: 3 }],
  [{ regex: /o.e/ }, { regex: 'o.e' }],
  [{ ebnf: 'root ::= "one"' }, { ebnf: 'root ::= "one"' }],
  [{ lark: 'start: "one"' }, { lark: 'start: "one"' }],
];
for (const [asked, arrives] of options) {
  test(`gen with ${JSON.stringify(asked)}, its own or as the run's default`, async (t) => {
    const [own, ofRun] = [backend(), backend()];
    await fn((s) => s`A:${gen('a', asked)}`).run({}, { backend: own });
    t.like(own.calls[0]!.options, arrives);
    if ('regex' in asked || 'ebnf' in asked || 'lark' in asked) return;
    await fn((s) => s`A:${gen('a')}`).run({}, { backend: ofRun, ...asked });
    t.like(ofRun.calls[0]!.options, arrives);
  });
}

test('values: gen_int, gen_string, dtype, choices, select and a schema', async (t) => {
  const program = fn((s) =>
    s`n=${genInt('i')} s=${genString('s')} n=${gen('j', { type: 'int' })} n=${gen('f', { type: 'float' })}`(
      ' I like ',
      gen('c', { choices: ['coffee', 'tea'] }),
      ' like ',
      select('d', ['coffee', 'tea']),
      ' n=',
      gen('k', { schema: z.int() }),
    ),
  );
  const { vars } = await program.run({}, { backend: backend() });
  t.deepEqual(vars, { i: 7, s: 'x y', j: 7, f: 7, c: 'tea', d: 'tea', k: 7 });
});

test('fork, join, copy, nested calls and bind', async (t) => {
  const ask = fn((s, { first, second }: { first: string; second: string }) => s`${first}${second} A:${gen('a')}`);
  const program = fn(async (s) => {
    const forks = s`Q `.fork(3);
    forks.forEach((branch, i) => branch`${i} A:${gen('x')}`);
    const joined = await forks.join<{ x: string }>();
    const copied = await s.copy(async (c) => (await ask(c, { first: '', second: 'copy' })).text());
    return ask(s, { first: joined.map(({ vars }) => vars.x).join(), second: ` ${copied} ` });
  });
  t.is((await program.run({}, { backend: backend() })).text(), 'Q one,one,one Q copy A:one  A:one');
  const bound = ask.bind({ first: 'x' });
  t.is((await bound.run({ second: 'y' }, { backend: backend() })).text(), 'xy A:one');
});

test('text_iter and text_async_iter: of the whole, of a variable, and by names', async (t) => {
  const run = fn((s) => s`A:${gen('a')} n=${gen('n')}`).run({}, { backend: backend() });
  const join = async (pieces: AsyncIterable<string>) => {
    let all = '';
    for await (const piece of pieces) all += piece;
    return all;
  };
  t.deepEqual([await join(run.textStream()), await join(run.textStream('n'))], ['A:one n=7', '7']);
  const names = new Set<string | null>();
  for await (const { name } of run.events()) names.add(name);
  t.deepEqual([...names], [null, 'a', 'n']);
});

test.serial('set_default_backend, run_batch and flush_cache', async (t) => {
  let flushed = 0;
  setDefaultBackend(Object.assign(backend(), { flushCache: async () => void flushed++ }));
  const program = fn((s, { q }: { q: string }) => s`${q}${gen('a')}`);
  const states = await program.runBatch([{ q: 'A:' }, { q: 'n=' }], { concurrency: 1, progress: true });
  t.deepEqual(
    states.map(({ vars }) => vars.a),
    ['one', '7'],
  );
  await flushCache();
  t.is(flushed, 1);
});

test('an image is a path, a URL of a file or of the web, a data URL, or bytes', async (t) => {
  const bytes = Uint8Array.from([0x89, 0x50, 0x4e, 0x47]);
  const path = join(await temporaryFolder(t), 'a.png');
  await writeFile(path, bytes);
  const data = 'data:image/png;base64,iVBORw==';
  for (const source of [path, pathToFileURL(path), pathToFileURL(path).href, bytes, data])
    t.is(await imageUrl(source), data, String(source));
  for (const url of ['https://a.b/c.png', new URL('http://a.b/c.png')]) t.is(await imageUrl(url), String(url));
  await t.throwsAsync(imageUrl(`${path}x`), { message: /a\.pngx: ENOENT/ });
});
