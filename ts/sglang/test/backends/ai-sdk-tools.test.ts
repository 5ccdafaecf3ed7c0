/** Tools of the AI SDK called by our models: whole, streamed, over several steps, and in the form of the model. */
import { generateText, stepCountIs, streamText, tool, type ToolSet } from 'ai';
import test from 'ava';
import { z } from 'zod';
import { createSglang } from '../../src/backends/ai-sdk.ts';
import { FakeBackend, SglangError, type Backend } from '../../src/index.ts';
import { renderChat, type ChatTemplate } from '../../src/templates/chat-template.ts';

const city = z.object({ city: z.string() });
const tools = {
  weather: tool({
    description: 'Weather of a city',
    inputSchema: city,
    execute: async ({ city }) => `sunny in ${city}`,
  }),
  time: tool({ inputSchema: city, execute: async ({ city }) => ({ in: city, hour: 7 }) }),
} satisfies ToolSet;

/** Looks the weather up and then the time, and says what it was told. */
const replies: ConstructorParameters<typeof FakeBackend>[0] = {
  replies: [
    ['Weather in Paris?', 'I will look.\n<tool_call>'],
    [/"name": "$/, (prompt) => (prompt.split('assistant')[1]!.includes('weather') ? 'time' : 'weather')],
    [/"arguments": $/, '{"city": "Paris"}'],
    [/weather.*\}\n<\/tool_call>$/, '\n<tool_call>\n{"name": "'],
    [/time.*\}\n<\/tool_call>$/, ''],
    [/hour[^]*assistant[^"]*$/, 'Sunny, and 7.'],
  ],
};

/** What is told of a call or an answer, without ids. */
const shown = (
  parts: readonly { type: string; text?: string; toolName?: string; input?: unknown; output?: unknown }[],
) =>
  parts.map(({ type, text, toolName, input, output }) =>
    [type, text ?? toolName, ...(type === 'tool-result' ? [output] : input ? [input] : [])].filter(Boolean),
  );
const steps = [
  ['text', 'I will look.'],
  ['tool-call', 'weather', { city: 'Paris' }],
  ['tool-call', 'time', { city: 'Paris' }],
  ['tool-result', 'weather', 'sunny in Paris'],
  ['tool-result', 'time', { in: 'Paris', hour: 7 }],
];

test('generateText calls tools side by side and goes on with their results', async (t) => {
  const backend = new FakeBackend(replies);
  const { text, steps: taken } = await generateText({
    model: createSglang(backend)('m'),
    system: 'Be kind.',
    prompt: 'Weather in Paris?',
    ...{ tools, stopWhen: stepCountIs(3), maxOutputTokens: 50 },
  });
  t.deepEqual(shown(taken[0]!.content), steps);
  t.is(taken[0]!.finishReason, 'tool-calls');
  t.is(text, 'Sunny, and 7.');
  t.is(taken.at(-1)!.finishReason, 'stop');
  t.regex(
    backend.calls[0]!.prompt,
    /^system: Be kind\.\n\nYou may call functions.*\n\{"name":"weather","description":"Wea/,
  );
  const second = backend.calls.at(-1)!.prompt;
  t.true(
    second.endsWith(
      'I will look.\n<tool_call>\n{"name": "weather", "arguments": {"city":"Paris"}}\n</tool_call>\n' +
        '<tool_call>\n{"name": "time", "arguments": {"city":"Paris"}}\n</tool_call>\n' +
        'user: <tool_response>\nsunny in Paris\n</tool_response>\n' +
        '<tool_response>\n{"in":"Paris","hour":7}\n</tool_response>\nassistant:',
    ),
    second,
  );
});

test('streamText gives the same calls, their arguments in pieces', async (t) => {
  const stream = streamText({ model: createSglang(new FakeBackend(replies))('m'), prompt: 'Weather in Paris?', tools });
  let input = '';
  const kinds = new Set<string>();
  for await (const part of stream.fullStream) {
    kinds.add(part.type);
    if (part.type === 'tool-input-delta') input += part.delta;
  }
  t.deepEqual(shown(await stream.content), steps);
  t.is(input, '{"city": "Paris"}'.repeat(2));
  t.true(['text-start', 'text-end', 'tool-input-start', 'tool-input-end'].every((kind) => kinds.has(kind)));
  t.is(await stream.finishReason, 'tool-calls');
});

const choose = (toolChoice: 'none' | 'required' | { type: 'tool'; toolName: 'time' }) => {
  const backend = new FakeBackend(replies);
  const model = createSglang(backend)('m');
  return generateText({ model, prompt: 'Weather in Paris?', tools, toolChoice });
};

test('toolChoice: none, any, or the one that is named', async (t) => {
  t.is((await choose('none')).text, 'I will look.\n<tool_call>');
  t.deepEqual(shown((await choose('required')).toolCalls)[0], ['tool-call', 'weather', { city: 'Paris' }]);
  const named = await choose({ type: 'tool', toolName: 'time' });
  t.deepEqual(shown(named.content), [
    ['tool-call', 'time', { city: 'Paris' }],
    ['tool-result', 'time', { in: 'Paris', hour: 7 }],
  ]);
});

test('a call that the token limit cuts off is none, and the answer says why it ended', async (t) => {
  const model = createSglang(new FakeBackend(replies))('m');
  const cut = await generateText({ model, prompt: 'Weather in Paris?', tools, maxOutputTokens: 5 });
  t.deepEqual(shown(cut.content), [['text', 'I will look.']]);
  t.is(cut.finishReason, 'length');
});

/** An engine as far as the provider looks at it: its model's template writes calls in a form of its own. */
class Mistral extends FakeBackend {
  readonly model = {
    chatTemplate:
      '{% for m in messages %}<{{ m.role }}>{{ m.content }}' +
      '{% for c in m.tool_calls or [] %}[TOOL_CALLS]{{ c.function | tojson }}{% endfor %}{% endfor %}' +
      '{{ tools | length }}{% if add_generation_prompt %}<assistant>{% endif %}',
  };

  readonly applyChatTemplate = (...[messages, options]: Parameters<ChatTemplate['render']>) =>
    renderChat({ modelPath: 'm', bosToken: null, eosToken: null, ...this.model }, messages, options);

  readonly tokenize = (text: string) => (text === '[TOOL_CALLS]' ? [5] : [1, 2]);
}

test('an engine is asked in the form of its model', async (t) => {
  const backend = new Mistral({
    replies: [
      ['<user>', '[TOOL_CALLS]'],
      ['{"name": "', 'time'],
      ['"arguments": ', '{"city": "Rome"}'],
      ['{"city": "Rome"}}', ']'],
      ['<tool>', 'Seven.'],
    ],
  });
  const { text, steps: taken } = await generateText({
    ...{ model: createSglang(backend)('m'), prompt: 'Time?', tools, stopWhen: stepCountIs(2) },
  });
  t.deepEqual(shown(taken[0]!.toolCalls), [['tool-call', 'time', { city: 'Rome' }]]);
  t.is(text, 'Seven.');
  t.like(backend.calls[0], {
    prompt: '<user>Time?2<assistant>',
    options: { stop: ['[TOOL_CALLS]'], stopTokenIds: [5] },
  });
  t.is(backend.calls[1]!.prompt, '<user>Time?2<assistant>[TOOL_CALLS] [{"name": "');
  t.regex(
    backend.calls.at(-1)!.prompt,
    /\[TOOL_CALLS\]\{"name": "time", "arguments": \{"city": "Rome"\}\}<tool>\{"in":"Rome"/,
  );
});

test('a model without grammars says that calls need them', async (t) => {
  const refuses: Backend = {
    kind: 'plain',
    async *stream(_, { regex }) {
      if (regex) throw new SglangError('unsupported', 'plain has no regex', 'regex');
      yield {
        text: '',
        meta: { promptTokens: 1, completionTokens: 0, cachedTokens: 0, finishReason: 'stop', matched: '<tool_call>' },
      };
    },
    select: () => Promise.reject(new Error('not asked')),
  };
  await t.throwsAsync(generateText({ model: createSglang(refuses)('m'), prompt: 'x', tools, maxRetries: 0 }), {
    message: /plain has no regex/,
  });
});
