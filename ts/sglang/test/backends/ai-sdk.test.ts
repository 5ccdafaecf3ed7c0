/** The AI SDK both ways: what its functions say of our models, what programs say of its models, and the way there and back. */
import { generateText, Output, streamText } from 'ai';
import { MockLanguageModelV3, simulateReadableStream } from 'ai/test';
import type { LanguageModelV3StreamPart, LanguageModelV3Usage } from '@ai-sdk/provider';
import test from 'ava';
import { z } from 'zod';
import { aiSdkBackend, createSglang } from '../../src/backends/ai-sdk.ts';
import { FakeBackend, fn, gen, image, select, type GenOptions } from '../../src/index.ts';

const usage: LanguageModelV3Usage = {
  inputTokens: { total: 9, noCache: 5, cacheRead: 4, cacheWrite: undefined },
  outputTokens: { total: 2, text: 2, reasoning: undefined },
};
const finish = { type: 'finish', usage, finishReason: { unified: 'stop', raw: 'stop' } } as const;
const said = (...pieces: string[]): LanguageModelV3StreamPart[] => [
  { type: 'text-start', id: '0' },
  ...pieces.map((delta) => ({ type: 'text-delta' as const, id: '0', delta })),
  { type: 'text-end', id: '0' },
  finish,
];
function model(answer: (nth: number) => LanguageModelV3StreamPart[]) {
  const mock: MockLanguageModelV3 = new MockLanguageModelV3({
    doStream: async () => ({ stream: simulateReadableStream({ chunks: answer(mock.doStreamCalls.length - 1) }) }),
  });
  return mock;
}
const asks = (options: GenOptions) => fn((s) => s.user('x').assistant(gen('a', options)));

test('a model of the AI SDK as a backend: messages, options, pieces, meta', async (t) => {
  const mock = model(() => said('Wash', 'ington'));
  const program = fn((s) =>
    s
      .system('Be kind.')
      .user(image(new Uint8Array([0x89, 0x50, 0x4e, 0x47])), 'The capital?')
      .assistant('It is ', gen('a', { maxTokens: 7, stop: '\n', topK: 3 })),
  );
  const run = program.run({}, { backend: aiSdkBackend(mock), temperature: 0.5, seed: 3 });
  const pieces: string[] = [];
  for await (const piece of run.textStream('a')) pieces.push(piece);
  t.deepEqual(pieces, ['Wash', 'ington']);
  t.deepEqual((await run).meta('a'), { promptTokens: 9, completionTokens: 2, cachedTokens: 4, finishReason: 'stop' });
  const picture = { type: 'file' as const, mediaType: 'image/png', data: 'iVBORw==' };
  t.like(mock.doStreamCalls[0], {
    prompt: [
      { role: 'system', content: 'Be kind.' },
      { role: 'user', content: [picture, { type: 'text', text: 'The capital?' }] },
      { role: 'assistant', content: [{ type: 'text', text: 'It is ' }] },
    ],
    ...{ maxOutputTokens: 7, temperature: 0.5, seed: 3, topK: 3, stopSequences: ['\n'] },
  });
});

test('schemas, types and choices are asked for as JSON', async (t) => {
  const values = ['{"n":1}', '{"value":7}', '{"value":"web browser"}'];
  const mock = model((nth) => said(values[nth]!));
  const program = fn((s) =>
    s
      .user('?')
      .assistant(gen('o', { schema: z.object({ n: z.int() }) }), gen('i', { type: 'int' }))
      .user('?')
      .assistant(select('tool', ['calculator', 'web browser'])),
  );
  const { vars } = await program.run({}, { backend: aiSdkBackend(mock) });
  t.deepEqual(vars, { o: { n: 1 }, i: 7, tool: 'web browser' });
  t.like(mock.doStreamCalls[0]!.responseFormat, { type: 'json', schema: { required: ['n'] } });
});

const unsupported: LanguageModelV3StreamPart = {
  type: 'stream-start',
  warnings: [{ type: 'unsupported', feature: 'seed' }],
};
const failures: readonly (readonly [string, GenOptions, LanguageModelV3StreamPart[], RegExp])[] = [
  ['a regex', { regex: /a/ }, said('x'), /the AI SDK has no option regex/],
  ['minP', { minP: 0.1 }, said('x'), /has no option minP/],
  ['what a provider warns of', { seed: 1 }, [unsupported, ...said('x')], /has no seed/],
  ['an error of the stream', {}, [{ type: 'error', error: new Error('boom') }], /boom/],
  ['a broken answer', {}, said('x').slice(0, 2), /the answer broke off/],
  ['a filter', {}, [{ ...finish, finishReason: { unified: 'content-filter', raw: 'unsafe' } }], /ended with unsafe/],
];
for (const [what, options, parts, message] of failures) {
  test(`${what} is an error`, async (t) => {
    await t.throwsAsync(async () => asks(options).run({}, { backend: aiSdkBackend(model(() => parts)) }), { message });
  });
}

test('ignoreUnsupported does without what a provider warns of', async (t) => {
  const backend = aiSdkBackend(
    model(() => [unsupported, ...said('x')]),
    { ignoreUnsupported: true },
  );
  t.is((await asks({ seed: 1 }).run({}, { backend })).vars.a, 'x');
});

const fake = () =>
  new FakeBackend({
    replies: [
      ['capital', 'Washington it is'],
      ['JSON', '{"n": 7}'],
    ],
  });

test('a backend as a model: generateText, streamText and objects', async (t) => {
  const backend = fake();
  const sglang = createSglang(backend);
  const whole = await generateText({
    model: sglang('m'),
    system: 'Be kind.',
    prompt: 'The capital?',
    maxOutputTokens: 20,
    stopSequences: [' is'],
    temperature: 0,
    seed: 4,
  });
  t.is(whole.text, 'Washington it');
  t.is(whole.finishReason, 'stop');
  t.like(whole.usage, { inputTokens: 7, outputTokens: 2 });
  t.is(backend.calls[0]!.prompt, 'system: Be kind.\nuser: The capital?\nassistant:');
  const stream = streamText({ model: sglang.languageModel('m'), prompt: 'The capital?' });
  const pieces: string[] = [];
  for await (const piece of stream.textStream) pieces.push(piece);
  t.is(pieces.join(''), 'Washington it is');
  t.true(pieces.length > 1);
  const { output } = await generateText({
    model: sglang('m'),
    output: Output.object({ schema: z.object({ n: z.number() }) }),
    prompt: 'JSON',
  });
  t.deepEqual(output, { n: 7 });
  t.truthy((backend.calls.at(-1)!.options as { jsonSchema?: string }).jsonSchema);
});

test('what our models lack is a warning or an error, and an abort ends a stream', async (t) => {
  const sglang = createSglang(new FakeBackend({ pieceLength: 1 }));
  const tools = [{ type: 'provider' as const, id: 'their.search' as const, name: 'search', args: {} }];
  const prompt = [{ role: 'user' as const, content: [{ type: 'text' as const, text: 'x' }] }];
  const { warnings } = await sglang('m').doGenerate({ prompt, tools });
  t.like(warnings, [{ type: 'unsupported', feature: 'tool their.search' }]);
  const file = { type: 'file' as const, mediaType: 'application/pdf', data: 'x' };
  await t.throwsAsync(async () => sglang('m').doGenerate({ prompt: [{ role: 'user', content: [file] }] }), {
    message: /not a file of type application\/pdf/,
  });
  t.throws(() => sglang.embeddingModel('e'), { message: /no e here/ });
  const controller = new AbortController();
  const { stream } = await sglang('m').doStream({ prompt, abortSignal: controller.signal });
  const reader = stream.getReader();
  await reader.read();
  controller.abort(new Error('enough'));
  await t.throwsAsync(
    async () => {
      while (!(await reader.read()).done);
    },
    { message: 'enough' },
  );
});

test('there and back: a program says the same through a model made of its own backend', async (t) => {
  const picture = image(new Uint8Array([0x89, 0x50, 0x4e, 0x47]));
  const program = fn((s, { n }: { n: number }) =>
    s
      .system('Be kind.')
      .user(picture, `q${n}`)
      .assistant('Well, ', gen('a', { maxTokens: 4 }), gen('b', { stop: ['e'], seed: n }))
      .user('more')
      .assistant(gen('c', { schema: z.object({ x: z.string() }) })),
  );
  for (let n = 0; n < 5; n++) {
    const there = await program.run({ n }, { backend: new FakeBackend() });
    const back = await program.run({ n }, { backend: aiSdkBackend(createSglang(new FakeBackend())('m')) });
    t.deepEqual(back.vars, there.vars);
    for (const name of ['a', 'b', 'c'] as const) t.deepEqual(back.meta(name), there.meta(name));
  }
});
