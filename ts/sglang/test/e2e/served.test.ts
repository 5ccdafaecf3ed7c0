/** The whole path with real numbers: a tiny model behind the real server, asked by programs, the OpenAI client and fetch. */
import test from 'ava';
import { generateText, jsonSchema, type ToolSet } from 'ai';
import OpenAI from 'openai';
import { z } from 'zod';
import { aiSdkBackend, createSglang } from '../../src/backends/ai-sdk.ts';
import { OpenAI as OpenAIBackend } from '../../src/backends/openai.ts';
import { RuntimeEndpoint } from '../../src/backends/runtime-endpoint.ts';
import { Engine } from '../../src/engine/engine.ts';
import { gen, select } from '../../src/lang/primitives.ts';
import { fn } from '../../src/lang/program.ts';
import { serve, type RunningServer } from '../../src/server/serve.ts';
import { defaultModel, tinyEngine } from '../engine/fixtures.ts';

let engine: Engine;
let server: RunningServer;
let client: OpenAI;

test.before(async () => {
  engine = await tinyEngine();
  server = await serve(engine, { port: 0 });
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
});
test.after.always(() => server.stop());

const talk = fn(async (s, { topic }: { topic: string }) => {
  s.system`Be brief.`.user(`Tell me about ${topic}.`).assistant(gen('answer', { maxTokens: 10, ignoreEos: true }));
  const [a, b] = s.fork(2);
  const [x, y] = await Promise.all([
    a.user('One?').assistant(gen('more', { maxTokens: 5, ignoreEos: true })),
    b.user('Two?').assistant(select('pick', ['alpha', 'beta', 'gamma'])),
  ]);
  return s.user(`${x.vars.more}|${y.vars.pick}`).assistant(gen('end', { maxTokens: 6, ignoreEos: true }));
});

test('a program says the same in process and against the server', async (t) => {
  const args = { topic: 'the sea' };
  const inProcess = await talk.run(args, { backend: engine, temperature: 0 });
  const served = await talk.run(args, { backend: new RuntimeEndpoint(server.url), temperature: 0 });
  t.deepEqual(served.vars, inProcess.vars);
  t.is(served.text(), inProcess.text());
  t.true(served.meta('end').cachedTokens > 0);
});

test('what the engine refuses is named as the request names it, whole and streamed', async (t) => {
  const chat = { messages: [{ role: 'user', content: 'x' }] };
  const rows: [path: string, body: object, param: string, message: RegExp][] = [
    ['/generate', { text: '' }, 'text', /empty/],
    [
      '/generate',
      { text: 'x', sampling_params: { regex: '(a' } },
      'sampling_params.regex',
      /^sampling_params.regex: at/,
    ],
    ['/v1/completions', { prompt: '' }, 'prompt', /empty/],
    ['/v1/completions', { prompt: 'x', regex: '(a' }, 'regex', /^regex: at position 0/],
    ['/v1/completions', { prompt: 'x', min_tokens: 20 }, 'min_tokens', /larger than/],
    ['/v1/chat/completions', { ...chat, stop: [''] }, 'stop', /must not be empty/],
    ['/v1/chat/completions', { ...chat, logit_bias: { 999999: 1 } }, 'logit_bias', /^logit_bias: token id 999999/],
    ['/v1/chat/completions', { ...chat, json_schema: { type: 'int' } }, 'json_schema', /^json_schema: at "/],
    ['/v1/embeddings', { input: '' }, 'input', /empty/],
  ];
  for (const [path, asked, param, message] of rows) {
    for (const stream of path === '/v1/embeddings' ? [false] : [false, true]) {
      const headers = { 'content-type': 'application/json' };
      const body = JSON.stringify({ ...asked, stream });
      const response = await fetch(server.url + path, { method: 'POST', headers, body });
      const { error } = (await response.json()) as { error: { param: string; message: string } };
      t.deepEqual([response.status, error.param], [400, param], `${path} ${body}: ${error.message}`);
      t.regex(error.message, message);
    }
  }
  t.is(engine.stats().running, 0);
});

test('tools are called with names and arguments that fit, whole and streamed', async (t) => {
  const tools = ['get_weather', 'get_time'].map((name) => ({
    type: 'function' as const,
    function: {
      name,
      parameters: {
        type: 'object',
        properties: { city: { enum: ['Rome', 'Oslo'] }, days: { type: 'integer', minimum: 1, maximum: 9 } },
        required: ['city', 'days'],
        additionalProperties: false,
      },
    },
  }));
  const body = {
    model: 'm',
    messages: [{ role: 'user' as const, content: 'Weather?' }],
    tools,
    tool_choice: 'required' as const,
    temperature: 1.5,
    seed: 11,
    max_tokens: 400,
  };
  const whole = await client.chat.completions.create(body);
  const streamed = await client.chat.completions.stream({ ...body, stream: true }).finalChatCompletion();
  const callsOf = ({ choices }: OpenAI.ChatCompletion) =>
    choices[0]!.message.tool_calls!.map((call) => (call.type === 'function' ? call.function : undefined)!);
  t.is(whole.choices[0]!.finish_reason, 'tool_calls');
  t.true(callsOf(whole).length > 0);
  for (const { name, arguments: given } of callsOf(whole)) {
    t.true(['get_weather', 'get_time'].includes(name));
    t.regex(given, /^\{"city":"(Rome|Oslo)","days":[1-9]\}$/);
  }
  t.deepEqual(callsOf(streamed), callsOf(whole));
  const theirs = tools.map(({ function: { name, parameters } }) => [name, { inputSchema: jsonSchema(parameters) }]);
  const { toolCalls } = await generateText({
    ...{ model: createSglang(engine)('m'), prompt: 'Weather?', tools: Object.fromEntries(theirs) as ToolSet },
    ...{ toolChoice: 'required', temperature: 1.5, seed: 11, maxOutputTokens: 400 },
  });
  const called = toolCalls.map(({ toolName, input }) => ({ name: toolName, arguments: JSON.stringify(input) }));
  t.deepEqual(called, callsOf(whole), 'as a provider of the AI SDK, too');
});

test('tags in free text hold JSON', async (t) => {
  const structure = { begin: '<f>', schema: { type: 'boolean' }, end: '</f>' };
  const body = {
    text: 'Say: ',
    sampling_params: {
      structural_tag: JSON.stringify({ structures: [structure], triggers: ['<'] }),
      temperature: 1.5,
      sampling_seed: 2,
      max_new_tokens: 300,
    },
  };
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(`${server.url}/generate`, { method: 'POST', headers, body: JSON.stringify(body) });
  const { text, meta_info } = (await response.json()) as {
    text: string;
    meta_info: { finish_reason: { type: string } };
  };
  const tags = meta_info.finish_reason.type === 'length' ? text.slice(0, text.lastIndexOf('<')) : text;
  t.regex(tags, /^([^<]|<f>(true|false)<\/f>)*$/);
});

const bound = fn((s) =>
  s
    .user('Answer.')
    .assistant(
      gen('regex', { regex: /[a-c]{3}-\d/ }),
      gen('ebnf', { ebnf: 'root ::= "(" root ")" | "x"' }),
      gen('lark', { lark: 'start: "<" start ">" | "y"' }),
      gen('schema', { schema: z.object({ ok: z.boolean() }) }),
      gen('int', { type: 'int' }),
      gen('choice', { choices: ['red', 'blue'] }),
    ),
);

test('every constraint holds in process and against the server', async (t) => {
  const options = { temperature: 1, seed: 5, maxTokens: 200 };
  const { vars } = await bound.run({}, { ...options, backend: engine });
  t.regex(vars.regex, /^[a-c]{3}-\d$/);
  t.regex(vars.ebnf, /^\(*x\)*$/);
  t.regex(vars.lark, /^<*y>*$/);
  t.is(typeof vars.schema.ok, 'boolean');
  t.true(Number.isInteger(vars.int));
  t.true(['red', 'blue'].includes(vars.choice));
  t.deepEqual((await bound.run({}, { ...options, backend: new RuntimeEndpoint(server.url) })).vars, vars);
});

/** What backends of messages and of templates must agree on: turns, one that was begun, options, constraints. */
const told = fn((s) =>
  s
    .system('Be brief.')
    .user('Tell me about the sea.')
    .assistant(gen('answer', { maxTokens: 10, ignoreEos: true, logprobs: 2 }))
    .user('And?')
    .assistant('Well, ', gen('more', { maxTokens: 8, ignoreEos: true, topK: 40, minP: 0.01 }))
    .user('A code.')
    .assistant(gen('code', { regex: /[a-c]{3}-\d/ })),
);

test('a program says the same through OpenAI’s API with SGLang’s extensions', async (t) => {
  const options = { temperature: 1, seed: 7 };
  const inProcess = await told.run({}, { ...options, backend: engine });
  const backend = new OpenAIBackend('any', { baseURL: `${server.url}/v1`, apiKey: 'none', extensions: true });
  const result = await told.run({}, { ...options, backend });
  t.deepEqual(result.vars, inProcess.vars);
  t.is(result.meta('more').completionTokens, 8);
  const native = await told.run({}, { ...options, backend: new RuntimeEndpoint(server.url) });
  const { logprobs } = inProcess.meta('answer');
  t.is(logprobs!.length, 10);
  t.deepEqual(native.meta('answer').logprobs, logprobs);
  const texts = logprobs!.map(({ text, logprob }) => [text, logprob]);
  t.deepEqual(
    result.meta('answer').logprobs!.map(({ text, logprob }) => [text, logprob]),
    texts,
  );
});

test('the engine as a model of the AI SDK, and back', async (t) => {
  const model = createSglang(engine)('tiny');
  const prompt = 'Hello there';
  const expected = await engine.generate({
    messages: [{ role: 'user', content: prompt }],
    samplingParams: { temperature: 0, maxNewTokens: 12 },
  });
  const { text, usage } = await generateText({ model, prompt, temperature: 0, maxOutputTokens: 12 });
  t.is(text, expected.text);
  t.is(usage.inputTokens, expected.meta.promptTokens);
  t.is(usage.outputTokens, expected.meta.completionTokens);
  const unlimited = await generateText({ model, prompt, temperature: 0 });
  t.is(unlimited.finishReason, unlimited.usage.totalTokens === engine.model.contextLength ? 'length' : 'stop');
  const program = fn((s) => s.user(prompt).assistant(gen('a', { maxTokens: 12 })));
  const back = await program.run({}, { temperature: 0, backend: aiSdkBackend(model) });
  t.is(back.vars.a, expected.text);
});

test('the official client: chat, completions, streams and usage agree with the engine', async (t) => {
  const messages = [{ role: 'user' as const, content: 'Hello there' }];
  const common = { model: 'any', temperature: 0, max_tokens: 12 };
  const expected = await engine.generate({ messages, samplingParams: { temperature: 0, maxNewTokens: 12 } });
  const whole = await client.chat.completions.create({ ...common, messages });
  t.is(whole.choices[0]!.message.content, expected.text);
  t.is(whole.usage!.completion_tokens, expected.outputIds.length);
  const stream = await client.chat.completions.create({
    ...common,
    messages,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = '';
  let usage;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? '';
    usage = chunk.usage ?? usage;
  }
  t.is(text, expected.text);
  t.is(usage!.prompt_tokens, expected.meta.promptTokens);
  const completion = await client.completions.create({ ...common, prompt: 'Hello there', logprobs: 2 });
  t.is(completion.choices[0]!.logprobs!.tokens!.length, completion.usage!.completion_tokens);
});

/** On a model that needs seconds for its answer: a tiny one may be done before the hang-up is noticed. */
test('a client that goes away frees what its request held', async (t) => {
  const slow = await Engine.create({ modelPath: defaultModel });
  const own = await serve(slow, { port: 0 });
  t.teardown(() => own.stop());
  const controller = new AbortController();
  const body = { prompt: 'On and on', max_tokens: 8000, temperature: 0, stream: true, ignore_eos: true };
  const response = await fetch(`${own.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal: controller.signal,
  });
  await response.body!.getReader().read();
  controller.abort();
  while (slow.stats().abortedTotal === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  const { abortedTotal, leasedTokens, generationTokensTotal } = slow.stats();
  t.deepEqual({ abortedTotal, leasedTokens }, { abortedTotal: 1, leasedTokens: 0 });
  t.true(generationTokensTotal < 8000);
});

test('what the engine refuses comes back as a 400 of the OpenAI shape, and the server goes on', async (t) => {
  const post = (body: unknown) =>
    fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
  const tooLong = await post({ prompt: 'word '.repeat(4000) });
  t.is(tooLong.status, 400);
  const { error } = (await tooLong.json()) as { error: { code: string; message: string } };
  t.is(error.code, 'context_length_exceeded');
  t.regex(error.message, /the context holds 2048/);
  t.is((await post({ prompt: 'x', logit_bias: { 99999: 1 } })).status, 400);
  t.is((await post({ prompt: 'x', max_tokens: 2 })).status, 200);
});

test('log-probabilities over the native wire', async (t) => {
  const ids = engine.tokenize('The license for this software');
  const response = await fetch(`${server.url}/generate`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      input_ids: ids,
      sampling_params: { max_new_tokens: 0 },
      return_logprob: true,
      return_text_in_logprobs: true,
    }),
  });
  const { meta_info: meta } = (await response.json()) as {
    meta_info: { input_token_logprobs: [number | null, number, string][]; prompt_tokens: number };
  };
  t.deepEqual(
    meta.input_token_logprobs.map(([, id]) => id),
    ids,
  );
  t.is(meta.input_token_logprobs[0]![0], null);
  t.is(meta.prompt_tokens, ids.length);
});
