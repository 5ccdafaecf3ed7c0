/** The OpenAI endpoints through OpenAI's own client, and the exact JSON where the client would hide it. */
import test from 'ava';
import OpenAI from 'openai';
import { logprobAt } from './fake-engine.ts';
import { startServer } from './harness.ts';

const messages = [{ role: 'user' as const, content: 'Hi' }];
const letters = (prompt: string, length: number, sample = 0) => {
  const first = [...Buffer.from(prompt)].reduce((total, id) => total + id, sample);
  return Array.from({ length }, (_, i) => String.fromCharCode(97 + ((first + i) % 26))).join('');
};
const rendered = '<user>Hi<assistant>';

async function start(t: Parameters<typeof startServer>[0], options: Parameters<typeof startServer>[1] = {}) {
  const server = await startServer(t, options);
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: options?.apiKey ?? 'none', maxRetries: 0 });
  return { ...server, client };
}

test('a chat completion, field by field', async (t) => {
  const { post } = await start(t, { servedModelName: 'served' });
  const { json } = await post('/v1/chat/completions', { model: 'any', messages, max_completion_tokens: 3, rid: 'r' });
  t.is(typeof json.created, 'number');
  t.deepEqual(
    { ...json, created: 0 },
    {
      id: 'chatcmpl-r',
      object: 'chat.completion',
      created: 0,
      model: 'served',
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: letters(rendered, 3), refusal: null },
          logprobs: null,
          finish_reason: 'length',
          matched_stop: null,
        },
      ],
      usage: {
        prompt_tokens: rendered.length,
        completion_tokens: 3,
        total_tokens: rendered.length + 3,
        prompt_tokens_details: { cached_tokens: 4 },
      },
    },
  );
});

test('chat through the official client: n, stop, seed, roles and text parts', async (t) => {
  const { client, engine } = await start(t);
  const parts = [
    { type: 'text' as const, text: 'one' },
    { type: 'text' as const, text: 'two' },
  ];
  const answer = await client.chat.completions.create({
    model: 'm',
    n: 2,
    seed: 7,
    max_tokens: 4,
    temperature: 0,
    stop: ['\n'],
    logit_bias: { 5: 1 },
    messages: [
      { role: 'developer', content: 'Be brief' },
      { role: 'user', content: parts },
    ],
  });
  const prompt = '<system>Be brief<user>one two<assistant>';
  t.deepEqual(
    answer.choices.map((choice) => choice.message.content),
    [letters(prompt, 4), letters(prompt, 4, 1)],
  );
  t.is(answer.usage!.prompt_tokens, prompt.length, 'the prompt is counted once');
  t.is(answer.usage!.completion_tokens, 8);
  const { seed, n, stop, temperature } = engine.requests[0]!.samplingParams!;
  t.deepEqual({ seed, n, stop, temperature }, { seed: 7, n: 2, stop: ['\n'], temperature: 0 });
});

test('salt, key and priority reach the engine from both endpoints', async (t) => {
  const { post, engine } = await start(t);
  const extras = { cache_salt: 'tenant', extra_key: 'k', priority: -2, max_tokens: 1 };
  t.is((await post('/v1/chat/completions', { messages, ...extras })).status, 200);
  t.is((await post('/v1/completions', { prompt: 'a', ...extras })).status, 200);
  for (const { cacheSalt, extraKey, priority } of engine.requests) {
    t.deepEqual([cacheSalt, extraKey, priority], ['tenant', 'k', -2]);
  }
});

test('chat without a limit may fill the context', async (t) => {
  const { client, engine } = await start(t);
  const answer = await client.chat.completions.create({ model: 'm', messages });
  t.is(answer.choices[0]!.finish_reason, 'stop');
  t.is(engine.requests[0]!.samplingParams!.maxNewTokens, Infinity);
});

test('a chat stream: one role, no empty deltas, the usage last', async (t) => {
  const { events } = await start(t, { servedModelName: 'served' });
  const body = { messages, max_tokens: 3, stream: true, stream_options: { include_usage: true }, rid: 'r' };
  const seen = await events('/v1/chat/completions', body);
  const text = letters(rendered, 3);
  t.deepEqual(
    seen.map((event) => event.choices[0]),
    [
      { index: 0, delta: { role: 'assistant', content: text[0] }, finish_reason: null },
      { index: 0, delta: { content: text[1] }, finish_reason: null },
      { index: 0, delta: { content: text[2] }, finish_reason: null },
      { index: 0, delta: {}, finish_reason: 'length' },
      undefined,
    ],
  );
  t.is(seen.at(-1).usage.completion_tokens, 3);
  t.true(
    seen.every(
      (event) => event.id === 'chatcmpl-r' && event.object === 'chat.completion.chunk' && event.model === 'served',
    ),
  );
});

test('a chat stream through the official client adds up to the whole answer, for every choice', async (t) => {
  const { client } = await start(t);
  const texts = ['', ''];
  for await (const chunk of await client.chat.completions.create({
    model: 'm',
    messages,
    n: 2,
    max_tokens: 5,
    stream: true,
  })) {
    for (const { index, delta } of chunk.choices) texts[index] += delta.content ?? '';
  }
  t.deepEqual(texts, [letters(rendered, 5), letters(rendered, 5, 1)]);
  const runner = client.chat.completions.stream({ model: 'm', messages, max_tokens: 5 });
  t.is(await runner.finalContent(), letters(rendered, 5));
});

test('a stop string is told as matched_stop, in a stream only where there is one', async (t) => {
  const { post, events } = await start(t);
  const stop = letters(rendered, 3)[2]!;
  const { json } = await post('/v1/chat/completions', { messages, stop });
  t.like(json.choices[0], { finish_reason: 'stop', matched_stop: stop });
  const seen = await events('/v1/chat/completions', { messages, stop, stream: true });
  t.is(seen.at(-1).choices[0].matched_stop, stop);
});

test('chat log-probabilities', async (t) => {
  const { client } = await start(t);
  const ask = { model: 'm', messages, max_tokens: 1, logprobs: true, top_logprobs: 2 };
  const answer = await client.chat.completions.create(ask);
  const token = letters(rendered, 1);
  const at = (text: string) => ({
    token: text,
    logprob: logprobAt(rendered.length, text.charCodeAt(0)),
    bytes: [text.charCodeAt(0)],
  });
  t.deepEqual(answer.choices[0]!.logprobs?.content, [{ ...at(token), top_logprobs: [at('A'), at('B')] }]);
  const contents = [];
  for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
    contents.push(...(chunk.choices[0]?.logprobs?.content ?? []));
  }
  t.deepEqual(contents, answer.choices[0]!.logprobs?.content);
});

test('what constrains the output is passed on', async (t) => {
  const { post, engine } = await start(t);
  const schema = { type: 'object', properties: { a: { type: 'integer' } } };
  const sent = [
    { response_format: { type: 'json_schema', json_schema: { name: 'x', strict: true, schema } } },
    { response_format: { type: 'json_object' } },
    { response_format: { type: 'text' } },
    { regex: 'a+' },
    { ebnf: 'root ::= "a"' },
    { json_schema: JSON.stringify(schema) },
    { lark: 'start: "a"' },
    { structural_tag: { structures: [], triggers: [] } },
  ];
  for (const extra of sent)
    t.is((await post('/v1/chat/completions', { messages, max_tokens: 1, ...extra })).status, 200);
  const got = engine.requests.map(
    ({ samplingParams: { regex, ebnf, jsonSchema, lark, structuralTag } = {} }) =>
      regex ?? ebnf ?? jsonSchema ?? lark ?? structuralTag,
  );
  t.deepEqual(got, [
    JSON.stringify(schema),
    '{"type":"object"}',
    undefined,
    'a+',
    'root ::= "a"',
    JSON.stringify(schema),
    'start: "a"',
    '{"structures":[],"triggers":[]}',
  ]);
});

test('template variables and an answer to be continued reach the engine', async (t) => {
  const { post, engine } = await start(t);
  const body = { messages, chat_template_kwargs: { thinking: false }, continue_final_message: true };
  await post('/v1/chat/completions', body);
  t.like(engine.requests[0], { chatTemplateOptions: { thinking: false }, continueFinalMessage: true });
});

test('completions of text, of lists, of tokens', async (t) => {
  const { client } = await start(t);
  const ask = async (prompt: string | string[] | number[] | number[][], n = 1) => {
    const { choices } = await client.completions.create({ model: 'm', prompt, n, max_tokens: 2 });
    return choices.map(({ index, text }) => [index, text]);
  };
  t.deepEqual(await ask('a'), [[0, letters('a', 2)]]);
  t.deepEqual(await ask([97]), [[0, letters('a', 2)]]);
  t.deepEqual(await ask([[97], [98]]), [
    [0, letters('a', 2)],
    [1, letters('b', 2)],
  ]);
  const two = [letters('a', 2), letters('a', 2, 1), letters('b', 2), letters('b', 2, 1)];
  t.deepEqual(
    await ask(['a', 'b'], 2),
    two.map((text, i) => [i, text]),
  );
  t.is((await client.completions.create({ model: 'm', prompt: 'a' })).choices[0]!.text.length, 16, "OpenAI's default");
});

test('echo and log-probabilities of a completion, whole and streamed', async (t) => {
  const { client } = await start(t);
  const ask = { model: 'm', prompt: 'ab', max_tokens: 2, echo: true, logprobs: 1 };
  const { choices } = await client.completions.create(ask);
  const text = `ab${letters('ab', 2)}`;
  t.is(choices[0]!.text, text);
  const position = (i: number) => (i === 0 ? null : logprobAt(i, text.charCodeAt(i)));
  t.deepEqual(choices[0]!.logprobs, {
    tokens: [...text],
    token_logprobs: [0, 1, 2, 3].map(position),
    top_logprobs: [null, ...[1, 2, 3].map((i) => ({ A: logprobAt(i, 65) }))],
    text_offset: [0, 1, 2, 3],
  } as never);
  let streamed = '';
  const logprobs: Record<string, unknown[]> = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
  for await (const chunk of await client.completions.create({ ...ask, stream: true })) {
    streamed += chunk.choices[0]?.text ?? '';
    for (const [name, list] of Object.entries(chunk.choices[0]?.logprobs ?? {})) logprobs[name]!.push(...list);
  }
  t.is(streamed, text);
  t.deepEqual(logprobs, choices[0]!.logprobs as never);
});

test('best_of keeps the likeliest samples', async (t) => {
  const { client } = await start(t);
  const { choices, usage } = await client.completions.create({ model: 'm', prompt: 'a', best_of: 3, max_tokens: 1 });
  t.is(choices.length, 1);
  t.is(
    choices[0]!.text,
    letters('a', 1),
    'of three consecutive letters the first has the largest log-probability here',
  );
  t.is(usage!.completion_tokens, 3);
});

test('models are listed and looked up; other names are refused only when asked to', async (t) => {
  const { client } = await start(t, { servedModelName: 'org/served', strictModel: true });
  const listed = [];
  for await (const model of client.models.list()) listed.push(model);
  t.like(listed[0], { id: 'org/served', object: 'model', owned_by: 'sglang', root: 'fake/model', max_model_len: 200 });
  t.is((await client.models.retrieve('org/served')).id, 'org/served');
  await t.throwsAsync(client.models.retrieve('other'), { instanceOf: OpenAI.NotFoundError, message: /"org\/served"/ });
  const wrong = client.chat.completions.create({ model: 'other', messages });
  t.is((await t.throwsAsync(wrong, { instanceOf: OpenAI.NotFoundError }))?.code, 'model_not_found');
  t.truthy(await client.chat.completions.create({ model: 'org/served', messages }));
});

test('errors reach the official client as its own classes', async (t) => {
  const { client } = await start(t, { apiKey: 'right' });
  const long = client.completions.create({ model: 'm', prompt: 'x'.repeat(300) });
  t.is((await t.throwsAsync(long, { instanceOf: OpenAI.BadRequestError }))?.code, 'context_length_exceeded');
  const wrong = new OpenAI({ baseURL: client.baseURL, apiKey: 'wrong', maxRetries: 0 });
  await t.throwsAsync(wrong.models.list().then(), { instanceOf: OpenAI.AuthenticationError });
  const full = client.completions.create({ model: 'm', prompt: 'OVERLOAD' });
  t.is((await t.throwsAsync(full, { instanceOf: OpenAI.InternalServerError }))?.status, 503);
  const late = await client.completions.create({ model: 'm', prompt: 'BREAKS_LATE', stream: true });
  const read = async () => {
    for await (const chunk of late) t.is(chunk.choices.length, 1);
  };
  await t.throwsAsync(read, { instanceOf: OpenAI.APIError, message: /the device is gone/ });
});
