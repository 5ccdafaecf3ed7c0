/** Programs on OpenAI's wire: what is sent, what is read, and what is refused. */
import test from 'ava';
import { z } from 'zod';
import type { OpenAI as Client } from 'openai';
import { OpenAI, SglangError, fn, gen, image, select, type GenOptions } from '../../src/index.ts';
import { scriptedServer, type Answer } from './scripted-server.ts';

const usage = { prompt_tokens: 9, completion_tokens: 2, prompt_tokens_details: { cached_tokens: 4 } };
const delta = (content: string) => ({ choices: [{ index: 0, delta: { content }, finish_reason: null }] });
const end = (finish_reason = 'stop') => ({ choices: [{ index: 0, delta: {}, finish_reason }] });
const said = (...pieces: string[]): Answer => ({
  events: [...pieces.map(delta), end(), { choices: [], usage }, '[DONE]'],
});
const valued = (value: unknown) => said(JSON.stringify({ value }));
const chat = (url: string) => ({ backend: new OpenAI('m', { baseURL: `${url}/v1`, apiKey: 'k', retryDelay: 1 }) });
const asks = (options: GenOptions) => fn((s) => s.user('x').assistant(gen('a', options)));

test('turns are messages; pieces are text; usage is meta', async (t) => {
  const { url, asked } = await scriptedServer(t, () => said('Wash', 'ington'));
  const program = fn((s) =>
    s
      .system('Be kind.')
      .user('The capital?')
      .assistant(gen('a', { maxTokens: 7, stop: '\n' })),
  );
  const run = program.run({}, { ...chat(url), temperature: 0.5, topP: 0.9, seed: 3 });
  const pieces: string[] = [];
  for await (const piece of run.textStream('a')) pieces.push(piece);
  t.deepEqual(pieces, ['Wash', 'ington']);
  t.deepEqual((await run).meta('a'), { promptTokens: 9, completionTokens: 2, cachedTokens: 4, finishReason: 'stop' });
  t.is(asked[0]!.path, '/v1/chat/completions');
  t.is(asked[0]!.headers.authorization, 'Bearer k');
  t.deepEqual(asked[0]!.body, {
    model: 'm',
    messages: [
      { role: 'system', content: 'Be kind.' },
      { role: 'user', content: 'The capital?' },
    ],
    max_tokens: 7,
    temperature: 0.5,
    top_p: 0.9,
    seed: 3,
    stop: ['\n'],
    stream: true,
    stream_options: { include_usage: true },
  });
});

test('plain text is a user message, an answer that was begun is the last message, a picture is a part', async (t) => {
  const { url, asked } = await scriptedServer(t, () => said('x'));
  await fn((s) => s`Q: hi\nA:${gen('a')}`).run({}, chat(url));
  await fn((s) => s.user(image(new Uint8Array([0x89, 0x50, 0x4e, 0x47])), 'what?').assistant('It is', gen('a'))).run(
    {},
    chat(url),
  );
  t.deepEqual(asked[0]!.body.messages, [{ role: 'user', content: 'Q: hi\nA:' }]);
  const picture = { type: 'image_url', image_url: { url: 'data:image/png;base64,iVBORw==' } };
  t.deepEqual(asked[1]!.body.messages, [
    { role: 'user', content: [picture, { type: 'text', text: 'what?' }] },
    { role: 'assistant', content: 'It is' },
  ]);
});

test('a model of completions gets the prompt as text', async (t) => {
  const events = [
    { choices: [{ text: ' Par' }] },
    { choices: [{ text: 'is', finish_reason: 'length' }], usage },
    '[DONE]',
  ];
  const { url, asked } = await scriptedServer(t, () => ({ events }));
  const backend = new OpenAI('gpt-3.5-turbo-instruct', { baseURL: url });
  const { vars, meta } = await fn((s) => s`A:${gen('a')}`).run({}, { backend });
  t.is(vars.a, ' Paris');
  t.truthy(meta);
  t.like(asked[0], { path: '/completions', body: { prompt: 'A:', max_tokens: 128 } });
});

test('a schema goes along and its value comes back', async (t) => {
  const { url, asked } = await scriptedServer(t, () => said('{"n":', '1}'));
  const program = fn((s) => s.user('n?').assistant(gen('a', { schema: z.object({ n: z.int() }) })));
  t.deepEqual((await program.run({}, chat(url))).vars.a, { n: 1 });
  t.like(asked[0]!.body.response_format, {
    type: 'json_schema',
    json_schema: { strict: true, schema: { required: ['n'] } },
  });
});

test('a schema of something else than an object has one around it', async (t) => {
  const { url, asked } = await scriptedServer(t, () => valued([1, 2]));
  const program = asks({ schema: z.array(z.int()) });
  t.deepEqual((await program.run({}, chat(url))).vars.a as unknown, [1, 2]);
  const { schema } = asked[0]!.body.response_format.json_schema;
  t.like(schema, { type: 'object', properties: { value: { type: 'array' } } });
});

test('a schema of an enumeration gives one of its values, and a choice may hold any character', async (t) => {
  const { url } = await scriptedServer(t, ({ body }) =>
    valued(body.response_format.json_schema.schema.properties.value.enum[1]),
  );
  const program = fn((s) =>
    s.user('?').assistant(gen('color', { schema: z.enum(['red', 'blue']) }), select('line', ['a b', 'a\n"b"'])),
  );
  t.deepEqual((await program.run({}, chat(url))).vars, { color: 'blue', line: 'a\n"b"' });
});

test('typed values are asked for as values of a schema', async (t) => {
  const { url, asked } = await scriptedServer(t, ({ body }) =>
    valued(
      { integer: 7, boolean: true, string: 'x "y' }[
        body.response_format.json_schema.schema.properties.value.type as 'integer'
      ],
    ),
  );
  const program = fn((s) => s.user('?').assistant(gen('a', { type: 'int' }), gen('b', { type: 'bool' })));
  t.deepEqual((await program.run({}, chat(url))).vars, { a: 7, b: true });
  t.is(asked[0]!.body.stop, undefined);
});

const choose = fn((s) => s`I need a ${select('tool', ['calculator', 'web browser'])}.`);

test('select asks for one of an enumeration', async (t) => {
  const { url, asked } = await scriptedServer(t, () => valued('web browser'));
  const result = await choose.run({}, chat(url));
  t.is(result.text(), 'I need a web browser.');
  const { response_format, messages, temperature } = asked[0]!.body;
  t.deepEqual(response_format.json_schema.schema.properties.value, {
    type: 'string',
    enum: ['calculator', 'web browser'],
  });
  t.is(messages.length, 2);
  t.is(temperature, 0);
});

test('select takes the nearest of a free answer where schemas are refused, and remembers that', async (t) => {
  const { url, asked } = await scriptedServer(t, ({ body }) =>
    body.response_format
      ? { status: 400, json: { error: { message: 'unknown field' } } }
      : said('The *calculator*, I think.'),
  );
  const options = chat(url);
  t.is((await choose.run({}, options)).vars.tool, 'calculator');
  t.is((await choose.run({}, options)).vars.tool, 'calculator');
  t.deepEqual(
    asked.map(({ body }) => 'response_format' in body),
    [true, false, false],
  );
});

test('only OpenAI’s own models of plain completions are taken for such by their names', (t) => {
  const isChat = (model: string) => new OpenAI(model, { baseURL: 'http://localhost:1', apiKey: 'k' }).isChatModel;
  t.deepEqual(['smollm2-135m-instruct', 'gpt-4o', 'gpt-3.5-turbo-instruct', 'davinci-002'].map(isChat), [
    true,
    true,
    false,
    false,
  ]);
});

test('a prompt that is refused says nothing of schemas', async (t) => {
  const refused: Answer = { status: 400, json: { error: { message: 'no' } } };
  const { url, asked } = await scriptedServer(t, (_, nth) => (nth < 2 ? refused : valued('calculator')));
  const options = chat(url);
  await t.throwsAsync(async () => choose.run({}, options), { message: /no/ });
  t.is((await choose.run({}, options)).vars.tool, 'calculator');
  t.true('response_format' in asked[2]!.body);
});

test('a chat may be without a limit, a plain completion not', async (t) => {
  const { url, asked } = await scriptedServer(t, () => said('x'));
  await asks({ maxTokens: Infinity }).run({}, chat(url));
  t.deepEqual(
    Object.keys(asked[0]!.body).filter((name) => name.startsWith('max_')),
    [],
  );
  const backend = new OpenAI('m', { baseURL: url, apiKey: 'k', isChatModel: false });
  await t.throwsAsync(async () => asks({ maxTokens: Infinity }).run({}, { backend }), {
    message: /maxTokens cannot be Infinity/,
  });
});

for (const [what, program, message] of [
  ['a regex', asks({ regex: /a/ }), /m: OpenAI's API has no option regex; use choices or schema/],
  ['a grammar', asks({ ebnf: 'root ::= "a"' }), /has no option ebnf/],
  ['a grammar of Lark', asks({ lark: 'start: "a"' }), /has no option lark/],
  ['topK', asks({ topK: 5 }), /has no option topK; leave it out, or create the backend with \{ ignoreUnsupported/],
  ['a minimum', asks({ minTokens: 1 }), /has no option minTokens/],
  ['stopTokenIds', asks({ stopTokenIds: [1] }), /has no option stopTokenIds/],
  [
    'a method of select',
    fn((s) => s`x${select('a', ['b'], { method: 'greedy_token_selection' })}`),
    /cannot select by greedy/,
  ],
  ['an empty prompt', fn((s) => s`${gen('a')}`), /the prompt is empty/],
] as const) {
  test(`${what} is refused before anything is sent`, async (t) => {
    const { url, asked } = await scriptedServer(t, () => said('x'));
    await t.throwsAsync(async () => program.run({}, chat(url)), { message });
    t.is(asked.length, 0);
  });
}

test('what changes nothing is not refused', async (t) => {
  const { url } = await scriptedServer(t, () => said('x'));
  const nothing = { topK: -1, minP: 0, repetitionPenalty: 1, minTokens: 0, ignoreEos: false, stopTokenIds: [] };
  t.is((await asks(nothing).run({}, chat(url))).vars.a, 'x');
});

test('ignoreUnsupported leaves sampling options out, but no constraint', async (t) => {
  const { url, asked } = await scriptedServer(t, () => said('x'));
  const backend = new OpenAI('m', { baseURL: url, ignoreUnsupported: true });
  t.is((await asks({ topK: 5, temperature: 0 }).run({}, { backend })).vars.a, 'x');
  t.false('top_k' in asked[0]!.body);
  await t.throwsAsync(async () => asks({ regex: /a/ }).run({}, { backend }), { message: /no option regex/ });
});

test('a server with SGLang’s extensions gets all options, and goes on with a turn that was begun', async (t) => {
  const { url, asked } = await scriptedServer(t, () => said('aa'));
  const backend = new OpenAI('m', { baseURL: url, extensions: true });
  const options = { topK: 5, minP: 0.1, repetitionPenalty: 1.5, minTokens: 1, ignoreEos: true, stopTokenIds: [7] };
  await fn((s) => s.user('x').assistant('It: ', gen('a', { ...options, regex: /a+/ }))).run({}, { backend });
  await asks({ lark: 'start: "a"' }).run({}, { backend });
  const sent = { top_k: 5, min_p: 0.1, repetition_penalty: 1.5, min_tokens: 1, ignore_eos: true, stop_token_ids: [7] };
  t.like(asked[0]!.body, { ...sent, regex: 'a+', continue_final_message: true });
  t.like(asked[1]!.body, { lark: 'start: "a"', ebnf: undefined, continue_final_message: undefined });
});

test('models that call tools by a grammar write regexes and grammars', async (t) => {
  const call = { id: '1', type: 'custom', custom: { name: 'write', input: '8.8.8.8' } };
  const choices = [{ index: 0, message: { content: null, tool_calls: [call] }, finish_reason: 'tool_calls' }];
  const { url, asked } = await scriptedServer(t, () => ({ json: { choices, usage } }));
  const backend = new OpenAI('gpt-5-mini', { baseURL: url });
  const result = await asks({ regex: /(\d\.){3}\d/ }).run({}, { backend });
  t.is(result.vars.a, '8.8.8.8');
  t.like(result.meta('a'), { promptTokens: 9, finishReason: 'stop' });
  const grammar = { syntax: 'regex', definition: '(\\d\\.){3}\\d' } as const;
  const { tools, tool_choice }: Pick<Client.ChatCompletionCreateParams, 'tools' | 'tool_choice'> = asked[0]!.body;
  t.like(tools, [{ type: 'custom', custom: { name: 'write', format: { type: 'grammar', grammar } } }]);
  t.deepEqual(tool_choice, { type: 'custom', custom: { name: 'write' } });
});

test('log-probabilities of chat and of completions are meta', async (t) => {
  const token = (text: string, logprob: number) => ({ token: text, logprob });
  const content = [{ ...token('x', -0.1), top_logprobs: [token('x', -0.1), token('y', -2)] }];
  const completion = { tokens: ['x'], token_logprobs: [-0.1], top_logprobs: [{ x: -0.1, y: -2 }] };
  const { url, asked } = await scriptedServer(t, ({ path }) => {
    const chatted = { index: 0, delta: { content: 'x' }, logprobs: { content }, finish_reason: 'stop' };
    const completed = { index: 0, text: 'x', logprobs: completion, finish_reason: 'stop' };
    return { events: [{ choices: [path.includes('chat') ? chatted : completed], usage }, '[DONE]'] };
  });
  const alternatives = [
    { text: 'x', logprob: -0.1 },
    { text: 'y', logprob: -2 },
  ];
  for (const isChatModel of [true, false]) {
    const backend = new OpenAI('m', { baseURL: url, isChatModel });
    const result = await asks({ logprobs: 2 }).run({}, { backend });
    t.deepEqual(result.meta('a').logprobs, [{ text: 'x', logprob: -0.1, top: alternatives }]);
  }
  t.like(asked[0]!.body, { logprobs: true, top_logprobs: 2 });
  t.like(asked[1]!.body, { logprobs: 2 });
});

test('organisation, project and headers of one’s own go along', async (t) => {
  const { url, asked } = await scriptedServer(t, () => said('x'));
  const named = { organization: 'o', project: 'p', headers: { 'x-mine': '1' } };
  await asks({}).run({}, { backend: new OpenAI('m', { baseURL: url, ...named }) });
  t.like(asked[0]!.headers, { 'openai-organization': 'o', 'openai-project': 'p', 'x-mine': '1' });
});

test('a refusal and an answer that breaks off are errors', async (t) => {
  const answers: Answer[] = [
    { events: [{ choices: [{ delta: { refusal: 'I would rather not' } }] }] },
    { events: [delta('x')] },
  ];
  const { url } = await scriptedServer(t, (_, nth) => answers[nth]!);
  const program = fn((s) => s.user('x').assistant(gen('a')));
  await t.throwsAsync(async () => program.run({}, chat(url)), { message: /refused: I would rather not/ });
  await t.throwsAsync(async () => program.run({}, chat(url)), { message: /the answer broke off/ });
});

test('an abort hangs up', async (t) => {
  const { url, asked } = await scriptedServer(t, () => ({ events: [delta('x')], hang: true }));
  const run = fn((s) => s.user('x').assistant(gen('a'))).run({}, chat(url));
  const reason = new Error('enough');
  const error = await t.throwsAsync(async () => {
    for await (const _ of run.textStream('a')) run.abort(reason);
  });
  t.is(error?.cause, reason);
  await asked[0]!.gone;
});

test('without a key OpenAI itself is not asked', (t) => {
  const { OPENAI_API_KEY: key, OPENAI_BASE_URL: address } = process.env;
  delete process.env.OPENAI_API_KEY;
  delete process.env.OPENAI_BASE_URL;
  t.throws(() => new OpenAI('m'), { instanceOf: SglangError, message: /set OPENAI_API_KEY or pass/ });
  Object.assign(process.env, key && { OPENAI_API_KEY: key }, address && { OPENAI_BASE_URL: address });
});
