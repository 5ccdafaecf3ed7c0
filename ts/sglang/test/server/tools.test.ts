/** Calls of tools through OpenAI's client, over an engine that answers by a script. */
import test from 'ava';
import OpenAI from 'openai';
import { RunningGeneration } from '../../src/engine/generation.ts';
import type { EngineLike, GenerateRequest, Generation, ModelCard } from '../../src/engine/types.ts';
import { formOf, shownHistory } from '../../src/templates/tools.ts';
import { serve } from '../../src/server/serve.ts';
import { FakeEngine } from './fake-engine.ts';
import { startServer } from './harness.ts';

const hermes = `{% for t in tools %}{{ t.function.name }}{% endfor %}<tool_call>`;
const mistral = '{% if tools %}[AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS]';
const llama3 = '<|start_header_id|>{{ tools }}';

/** Where a client aborts a part. */
const ABORT = '✂';

/** What the model says when it is asked for each part in turn. */
class ScriptedEngine extends FakeEngine {
  override readonly model: ModelCard;
  readonly prompts: string[] = [];
  readonly rendered: unknown[] = [];

  constructor(
    chatTemplate: string,
    readonly says: string[],
  ) {
    super();
    this.model = { ...new FakeEngine().model, chatTemplate };
  }

  override applyChatTemplate(...[messages, options]: Parameters<EngineLike['applyChatTemplate']>): string {
    // As an engine does.
    const shown = shownHistory(messages, formOf(this.model));
    this.rendered.push({ messages: shown, variables: options?.variables });
    return super.applyChatTemplate(shown);
  }

  override generate(request: GenerateRequest): Generation {
    this.requests.push(request);
    this.prompts.push(request.prompt!);
    const said = this.says.shift()!;
    const stopText = [request.samplingParams?.stop ?? []].flat().find((stop) => said.includes(stop));
    const end = stopText ?? (said.includes(ABORT) ? ABORT : undefined);
    const text = end === undefined ? said : said.slice(0, said.indexOf(end));
    const generation = new RunningGeneration('scripted', 1, () => {});
    const piece = { id: 0, logprobs: [], promptLogprobs: [], finish: undefined };
    for (const char of text) generation.take(0, { ...piece, text: char, tokens: [char.charCodeAt(0)] });
    const cutOff = text.length >= (request.samplingParams?.maxNewTokens ?? Infinity);
    const counts = { promptTokens: 10, completionTokens: text.length, cachedTokens: 4, discardedTokens: 0 };
    const reason = end === ABORT ? 'abort' : cutOff ? 'length' : 'stop';
    generation.take(0, { ...piece, text: '', tokens: [], finish: { reason, ...counts, stopText } });
    return generation;
  }
}

const parameters = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const tools = ['get_weather', 'get_time'].map((name) => ({
  type: 'function' as const,
  function: { name, description: `${name} of a city`, parameters },
}));
const messages = [{ role: 'user' as const, content: 'Weather in Paris?' }];

async function ask(
  t: Parameters<typeof startServer>[0],
  template: string,
  says: string[],
  options: Partial<OpenAI.ChatCompletionCreateParams> = {},
) {
  const engine = new ScriptedEngine(template, [...says]);
  const { url } = await startServer(t, {}, engine);
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 });
  const body = { model: 'm', messages, tools, ...options };
  const whole = await client.chat.completions.create({ ...body, stream: false });
  const wholeEngine = { prompts: [...engine.prompts], requests: [...engine.requests] };
  engine.says.push(...says);
  const stream = client.chat.completions.stream({ ...body, stream: true, stream_options: { include_usage: true } });
  const streamed = await stream.finalChatCompletion();
  const shape = ({ choices }: OpenAI.ChatCompletion) =>
    choices.map(({ message, finish_reason }) => ({
      content: message.content ?? null,
      finish: finish_reason,
      calls: message.tool_calls?.map(
        (call) => call.type === 'function' && [call.function.name, call.function.arguments],
      ),
    }));
  t.deepEqual(shape(streamed), shape(whole), 'streamed = whole');
  t.is(streamed.usage!.completion_tokens, whole.usage!.completion_tokens);
  return { ...shape(whole)[0]!, whole, ...wholeEngine };
}

test('auto: free text turns to calls where the model announces one', async (t) => {
  const says = ['Let me look.\n<tool_call>', 'get_weather', '{"city":"Paris"}', ''];
  const { content, finish, calls, whole, prompts, requests } = await ask(t, hermes, says);
  t.deepEqual(
    { content, finish, calls },
    { content: 'Let me look.', finish: 'tool_calls', calls: [['get_weather', '{"city":"Paris"}']] },
  );
  t.regex(whole.choices[0]!.message.tool_calls![0]!.id, /^call_[0-9a-f]{24}$/);
  t.is(prompts[1], `${prompts[0]}Let me look.\n<tool_call>\n{"name": "`);
  t.is(prompts[2], `${prompts[1]}get_weather", "arguments": `);
  t.is(requests[1]!.samplingParams!.regex, 'get_weather|get_time');
  t.deepEqual(JSON.parse(requests[2]!.samplingParams!.jsonSchema!), parameters);
  t.is(whole.usage!.completion_tokens, 'Let me look.\n'.length + 'get_weather'.length + '{"city":"Paris"}'.length);
});

test('auto: an answer without calls is an answer as ever', async (t) => {
  const { content, finish, calls } = await ask(t, hermes, ['It rains. ']);
  t.deepEqual({ content, finish, calls }, { content: 'It rains. ', finish: 'stop', calls: undefined });
});

test('several calls follow each other in the form of the model', async (t) => {
  const cases = [
    { template: hermes, said: '<tool_call>', more: '\n<tool_call>\n{"name": "', none: '', key: 'arguments' },
    { template: mistral, said: '[TOOL_CALLS]', more: ', {"name": "', none: ']', key: 'arguments' },
    { template: llama3, said: '{"name": "', more: '; {"name": "', none: '', key: 'parameters' },
    { template: '{{ messages }}', said: '<tool_call>', more: '\n<tool_call>\n{"name": "', none: '', key: 'arguments' },
  ];
  for (const { template, said, more, none, key } of cases) {
    const says = [said, 'get_time', '{"city":"Rome"}', more, 'get_weather', '{"city":"Oslo"}', none];
    const { content, calls, prompts, requests } = await ask(t, template, says);
    t.is(content, null);
    t.deepEqual(calls, [
      ['get_time', '{"city":"Rome"}'],
      ['get_weather', '{"city":"Oslo"}'],
    ]);
    t.true(prompts[2]!.endsWith(`{"name": "get_time", "${key}": `));
    t.true(prompts[4]!.endsWith(more) && prompts[4]!.includes('"Rome"}'));
    const again = new RegExp(`^(?:${requests[3]!.samplingParams!.regex!})$`, 'u');
    t.true(again.test(more) && again.test(none) && !again.test('x'), template);
  }
});

test('parallel_tool_calls: false asks for one call', async (t) => {
  const { calls, requests } = await ask(t, mistral, ['[TOOL_CALLS]', 'get_time', '{}'], { parallel_tool_calls: false });
  t.deepEqual(calls, [['get_time', '{}']]);
  t.is(requests.length, 3);
});

test('required: the answer begins with a call', async (t) => {
  const { calls, prompts } = await ask(t, mistral, ['get_time', '{}', ']'], { tool_choice: 'required' });
  t.deepEqual(calls, [['get_time', '{}']]);
  t.true(prompts[0]!.endsWith('[TOOL_CALLS] [{"name": "'));
});

test('a named tool is called once and its name is not asked for', async (t) => {
  const tool_choice = { type: 'function' as const, function: { name: 'get_time' } };
  const { calls, requests } = await ask(t, hermes, ['{"city":"Rome"}'], { tool_choice });
  t.deepEqual(calls, [['get_time', '{"city":"Rome"}']]);
  t.is(requests.length, 1);
});

test('none: tools are there and are not called', async (t) => {
  const { content, calls } = await ask(t, hermes, ['<tool_call>'], { tool_choice: 'none' });
  t.deepEqual({ content, calls }, { content: '<tool_call>', calls: undefined });
});

test('a call that the token limit cuts off says so', async (t) => {
  const options = { tool_choice: 'required' as const, max_tokens: 12 };
  const { finish, calls } = await ask(t, hermes, ['get_time', '{"ci'], options);
  t.deepEqual({ finish, calls }, { finish: 'length', calls: [['get_time', '{"ci']] });
});

test('an abort ends the answer, within the arguments of a call or before it has a name', async (t) => {
  const options = { tool_choice: 'required' as const };
  const late = await ask(t, hermes, ['get_time', `{"ci${ABORT}`], options);
  t.deepEqual([late.finish, late.calls, late.requests.length], ['abort', [['get_time', '{"ci']], 2]);
  const engine = new ScriptedEngine(hermes, [`get_${ABORT}`]);
  const { post } = await startServer(t, {}, engine);
  const early = (await post('/v1/chat/completions', { messages, tools, ...options })).json.choices[0];
  t.deepEqual([early.finish_reason, early.message.tool_calls, engine.requests.length], ['abort', undefined, 1]);
});

test('calls and their answers go back to the template', async (t) => {
  const history = [
    ...messages,
    {
      role: 'assistant' as const,
      content: null,
      tool_calls: [
        { id: 'a', type: 'function' as const, function: { name: 'get_time', arguments: '{"city":"Rome"}' } },
      ],
    },
    { role: 'tool' as const, tool_call_id: 'a', content: 'noon' },
  ];
  const engine = new ScriptedEngine(hermes, ['ok']);
  const { post } = await startServer(t, {}, engine);
  await post('/v1/chat/completions', { messages: history, tools });
  const calls = [{ id: 'a', type: 'function', function: { name: 'get_time', arguments: { city: 'Rome' } } }];
  const shown = [
    messages[0],
    { role: 'assistant', content: '', tool_calls: calls },
    { role: 'tool', content: 'noon', tool_call_id: 'a' },
  ];
  t.deepEqual(engine.rendered, [{ messages: shown, variables: { tools } }]);
});

test('calls without arguments go back as calls with none', async (t) => {
  for (const [template, shown] of [
    [hermes, { tool_calls: [{ type: 'function', function: { name: 'get_time', arguments: {} } }] }],
    ['{{ messages }}', { content: '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>' }],
  ] as const) {
    const engine = new ScriptedEngine(template, ['ok']);
    const { post } = await startServer(t, {}, engine);
    const call = { type: 'function', function: { name: 'get_time', arguments: '' } };
    const history = [...messages, { role: 'assistant', tool_calls: [call] }];
    t.is((await post('/v1/chat/completions', { messages: history, tools })).status, 200);
    t.like((engine.rendered[0] as { messages: unknown[] }).messages.at(-1), shown);
  }
});

test('an answer of several generations is finished while the server stops', async (t) => {
  const engine = new ScriptedEngine(hermes, ['get_time', '{"city":"Rome"}', '']);
  const server = await serve(engine, { port: 0 });
  let stopped: Promise<void> | undefined;
  const { generate } = engine;
  engine.generate = (request) => {
    stopped ??= server.stop();
    return generate.call(engine, request);
  };
  const response = await fetch(`${server.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ messages, tools, tool_choice: 'required' }),
  });
  const { choices } = (await response.json()) as OpenAI.ChatCompletion;
  t.like(choices[0]!.message.tool_calls![0], { function: { name: 'get_time', arguments: '{"city":"Rome"}' } });
  await stopped;
});

test('a system message with a picture is told of tools as another part', async (t) => {
  const engine = new ScriptedEngine('{{ messages }}', ['ok']);
  Object.assign(engine.model, { takesImages: true });
  const { post } = await startServer(t, {}, engine);
  const content = [
    { type: 'text', text: 'Look.' },
    { type: 'image_url', image_url: { url: 'data:image/png;base64,AAAA' } },
  ];
  await post('/v1/chat/completions', { messages: [{ role: 'system', content }, ...messages], tools });
  const [system] = (engine.rendered[0] as { messages: { content: { text: string }[] }[] }).messages;
  t.deepEqual(system!.content.slice(0, 2), content as never);
  t.regex(system!.content[2]!.text, /^You may call functions/);
});

test('a model without tools in its template is told of them in the system message', async (t) => {
  const engine = new ScriptedEngine('{{ messages }}', ['ok']);
  const { post } = await startServer(t, {}, engine);
  await post('/v1/chat/completions', { messages: [{ role: 'system', content: 'Be brief.' }, ...messages], tools });
  t.regex(engine.prompts[0]!, /^<system>Be brief\.\n\nYou may call functions[\s\S]*"get_weather"[\s\S]*<tool_call>/);
});

test('mistakes about tools are told by their field', async (t) => {
  const { post } = await startServer(t, {}, new ScriptedEngine(hermes, []));
  const cases: [object, string][] = [
    [{ tools: [{}] }, 'tools[0].type'],
    [{ tools: [{ type: 'function', function: { name: 'a b' } }] }, 'tools[0].function.name'],
    [{ tools, tool_choice: 'some' }, 'tool_choice'],
    [{ tools, tool_choice: { type: 'function', function: { name: 'x' } } }, 'tool_choice'],
    [{ tool_choice: 'required' }, 'tool_choice'],
    [{ messages: [{ role: 'user' }] }, 'messages[0].content'],
  ];
  for (const [fields, param] of cases) {
    const { status, json } = await post('/v1/chat/completions', { messages, ...fields });
    t.deepEqual([status, json.error.param], [400, param], JSON.stringify(fields));
  }
});
