/** Programs on Anthropic's wire; its official client reads the same answers and its types hold for what is sent. */
import Client from '@anthropic-ai/sdk';
import test from 'ava';
import { z } from 'zod';
import { Anthropic, SglangError, fn, gen, image, select, type GenOptions } from '../../src/index.ts';
import { scriptedServer, type Answer } from './scripted-server.ts';

type Params = Client.MessageCreateParamsStreaming;
type Delta = Client.RawContentBlockDelta;

const usage = { input_tokens: 9, cache_read_input_tokens: 4, cache_creation_input_tokens: 2 };
/** The events of an answer, each as the client's types want it. */
function said(
  deltas: Delta[],
  stop_reason: Client.StopReason = 'end_turn',
  stop_sequence: string | null = null,
): Answer {
  const isTool = deltas[0]?.type === 'input_json_delta';
  const empty = { type: 'text' as const, text: '', citations: null };
  const content_block = isTool ? { type: 'tool_use' as const, id: 't', name: 'answer', input: {} } : empty;
  const head = { id: 'm', type: 'message', role: 'assistant', model: 'c', content: [], stop_reason: null };
  const message = { ...head, stop_sequence: null, usage: { ...usage, output_tokens: 1 } } as unknown as Client.Message;
  const events: (Client.RawMessageStreamEvent | { type: 'ping' })[] = [
    { type: 'message_start', message },
    { type: 'content_block_start', index: 0, content_block },
    { type: 'ping' },
    ...deltas.map((delta) => ({ type: 'content_block_delta' as const, index: 0, delta })),
    { type: 'content_block_stop', index: 0 },
    {
      type: 'message_delta',
      delta: { stop_reason, stop_sequence },
      usage: { output_tokens: 2 } as Client.MessageDeltaUsage,
    },
    { type: 'message_stop' },
  ];
  return { events: events.map((event) => `${JSON.stringify(event)}`), eventNames: events.map(({ type }) => type) };
}
const text = (...pieces: string[]): Delta[] => pieces.map((piece) => ({ type: 'text_delta', text: piece }));
const json = (...pieces: string[]): Delta[] =>
  pieces.map((partial_json) => ({ type: 'input_json_delta', partial_json }));
const claude = (url: string) => ({ backend: new Anthropic('c', { baseURL: url, apiKey: 'k', retryDelay: 1 }) });
const asks = (options: GenOptions) => fn((s) => s.user('x').assistant(gen('a', options)));

test('turns are messages with the system apart; pieces are text; usage is meta', async (t) => {
  const { url, asked } = await scriptedServer(t, () => said(text('Wash', 'ington'), 'stop_sequence', '\n'));
  const program = fn((s) =>
    s
      .system('Be kind.')
      .user('The capital?')
      .assistant(gen('a', { maxTokens: 7, stop: '\n', topK: 3 })),
  );
  const run = program.run({}, { ...claude(url), temperature: 0.5, topP: 0.9 });
  const pieces: string[] = [];
  for await (const piece of run.textStream('a')) pieces.push(piece);
  t.deepEqual(pieces, ['Wash', 'ington']);
  t.deepEqual((await run).meta('a'), { promptTokens: 15, completionTokens: 2, cachedTokens: 4, finishReason: 'stop' });
  t.like(asked[0], { path: '/v1/messages', headers: { 'x-api-key': 'k', 'anthropic-version': '2023-06-01' } });
  t.is(asked[0]!.headers.authorization, undefined);
  const body: Params = {
    model: 'c',
    system: 'Be kind.',
    messages: [{ role: 'user', content: 'The capital?' }],
    max_tokens: 7,
    temperature: 0.5,
    top_p: 0.9,
    top_k: 3,
    stop_sequences: ['\n'],
    stream: true,
  };
  t.deepEqual(asked[0]!.body, body);
  const client = new Client({ baseURL: url, apiKey: 'k', maxRetries: 0 });
  const message = await client.messages.stream(body).finalMessage();
  t.deepEqual(message.content, [{ type: 'text', text: 'Washington', citations: null }]);
  t.is(message.stop_reason, 'stop_sequence');
  t.deepEqual(asked[1]!.body, asked[0]!.body, 'the official client sends the same');
});

test('a turn that was begun is gone on with; white space at its end is kept from the API', async (t) => {
  const { url, asked } = await scriptedServer(t, (_, nth) => said(nth === 0 ? text(' ', 'Ada') : text('Ada')));
  const program = fn((s) => s.user('Name?').assistant('Name: ', gen('a')));
  for (let nth = 0; nth < 2; nth++) t.is((await program.run({}, claude(url))).vars.a, 'Ada');
  t.deepEqual(asked[0]!.body.messages, [
    { role: 'user', content: 'Name?' },
    { role: 'assistant', content: 'Name:' },
  ]);
});

test('pictures travel as data or by their address', async (t) => {
  const { url, asked } = await scriptedServer(t, () => said(text('A cat.')));
  const bytes = new Uint8Array([0x89, 0x50, 0x4e, 0x47]);
  await fn((s) => s.user(image(bytes), image('https://a.b/c.png'), 'what?').assistant(gen('a'))).run({}, claude(url));
  const content: Client.ContentBlockParam[] = [
    { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'iVBORw==' } },
    { type: 'image', source: { type: 'url', url: 'https://a.b/c.png' } },
    { type: 'text', text: 'what?' },
  ];
  t.deepEqual(asked[0]!.body.messages, [{ role: 'user', content }]);
});

test('a schema is a tool’s, and what is passed to the tool is the value', async (t) => {
  const { url, asked } = await scriptedServer(t, () => said(json('{"n":', '1}'), 'tool_use'));
  t.deepEqual((await asks({ schema: z.object({ n: z.int() }) }).run({}, claude(url))).vars.a, { n: 1 });
  const { tools, tool_choice }: Params = asked[0]!.body;
  t.like(tools, [{ name: 'answer', input_schema: { type: 'object', required: ['n'] } }]);
  t.deepEqual(tool_choice, { type: 'tool', name: 'answer' });
});

test('types, choices and schemas of other things than objects stand in an object', async (t) => {
  const values: unknown[] = [7, [1, 2], 'dog', 'web browser'];
  const { url, asked } = await scriptedServer(t, (_, nth) => said(json(JSON.stringify({ value: values[nth] }))));
  const program = fn((s) =>
    s
      .user('?')
      .assistant('It: ', gen('n', { type: 'int' }))
      .user('?')
      .assistant(gen('list', { schema: z.array(z.int()) }))
      .user('?')
      .assistant(gen('animal', { schema: z.enum(['cat', 'dog']) }))
      .user('?')
      .assistant(select('tool', ['calculator', 'web browser'])),
  );
  t.deepEqual((await program.run({}, claude(url))).vars, { n: 7, list: [1, 2], animal: 'dog', tool: 'web browser' });
  t.is(asked[3]!.body.temperature, 0);
  const last = asked.map(({ body }) => body.messages.at(-1).role);
  t.deepEqual(last, ['user', 'user', 'user', 'user'], 'a message that was begun cannot be gone on with by a tool');
  t.deepEqual(asked[3]!.body.tools[0].input_schema.properties.value, {
    type: 'string',
    enum: ['calculator', 'web browser'],
  });
});

for (const [name, options] of [
  ['regex', { regex: /a/ }],
  ['lark', { lark: 'start: "a"' }],
  ['seed', { seed: 1 }],
  ['minP', { minP: 0.1 }],
  ['frequencyPenalty', { frequencyPenalty: 1 }],
  ['logprobs', { logprobs: true }],
] as const) {
  test(`${name} is refused by name before anything is sent`, async (t) => {
    const { url, asked } = await scriptedServer(t, () => said(text('x')));
    const message = new RegExp(`c: Anthropic's API has no option ${name}; `);
    await t.throwsAsync(async () => asks(options).run({}, claude(url)), { message });
    t.is(asked.length, 0);
  });
}

test('busy servers are asked again; errors in a stream, refusals and broken answers are told', async (t) => {
  const overloaded = { type: 'error', error: { type: 'overloaded_error', message: 'Overloaded' } };
  const answers: Answer[] = [
    { status: 529, json: overloaded, headers: { 'retry-after': '0' } },
    said(text('x')),
    { events: [overloaded] },
    said([], 'refusal'),
    { events: [{ type: 'content_block_delta', delta: { type: 'text_delta', text: 'x' } }] },
  ];
  const { url } = await scriptedServer(t, (_, nth) => answers[nth]!);
  const ask = async () => (await asks({}).run({}, claude(url))).vars.a;
  t.is(await ask(), 'x');
  await t.throwsAsync(ask, { message: /Overloaded/ });
  await t.throwsAsync(ask, { message: /c refused to answer/ });
  await t.throwsAsync(ask, { message: /the answer broke off/ });
});

test('an abort hangs up', async (t) => {
  const { events } = said(text('x'));
  const { url, asked } = await scriptedServer(t, () => ({ events: events!.slice(0, 4), hang: true }));
  const run = asks({}).run({}, claude(url));
  const reason = new Error('enough');
  const error = await t.throwsAsync(async () => {
    for await (const _ of run.textStream('a')) run.abort(reason);
  });
  t.is(error?.cause, reason);
  await asked[0]!.gone;
});

test('without a key Anthropic itself is not asked', (t) => {
  const { ANTHROPIC_API_KEY: key, ANTHROPIC_BASE_URL: address } = process.env;
  delete process.env.ANTHROPIC_API_KEY;
  delete process.env.ANTHROPIC_BASE_URL;
  t.throws(() => new Anthropic('c'), { instanceOf: SglangError, message: /set ANTHROPIC_API_KEY or pass/ });
  Object.assign(process.env, key && { ANTHROPIC_API_KEY: key }, address && { ANTHROPIC_BASE_URL: address });
});
