/** Messages through Jinja: variables, refusals, continuation, and the families for models that ship no template. */
import test from 'ava';
import { SglangError } from '../../src/engine/errors.ts';
import { ChatTemplate, renderChat } from '../../src/templates/chat-template.ts';
import { familyOf } from '../../src/templates/families.ts';
import { styles } from './styles.ts';

const hi = [{ role: 'user', content: 'hi' }];
const card = { modelPath: 'm', chatTemplate: null, bosToken: null, eosToken: null };

test('special tokens, tools, own variables and the date are at hand', (t) => {
  const source =
    "{{ bos_token }}{{ tools[0].name }}{{ mood }}{{ strftime_now('%Y') }}{{ messages[0].content }}{{ eos_token }}";
  const template = new ChatTemplate(source, { bosToken: '<s>', eosToken: '</s>' });
  const text = template.render(hi, { tools: [{ name: 'f' }], variables: { mood: '!' } });
  t.is(text, `<s>f!${new Date().getFullYear()}hi</s>`);
});

test('an answer is asked for unless the last message is continued', (t) => {
  const { source, ...tokens } = styles.find(({ name }) => name === 'trimmed contents')!;
  const template = new ChatTemplate(source, tokens);
  const begun = [...hi, { role: 'assistant', content: 'The answer is ' }];
  t.true(template.render(hi).endsWith('<|h|>assistant<|/h|>\n\n'));
  t.true(template.render(hi, { addGenerationPrompt: false }).endsWith('hi<|eot|>'));
  t.true(template.render(begun, { continueFinalMessage: true }).endsWith('<|h|>assistant<|/h|>\n\nThe answer is '));
});

const parts = [
  {
    role: 'user',
    content: [
      { type: 'text' as const, text: 'see ' },
      { type: 'image_url' as const, image_url: { url: 'x' } },
    ],
  },
];
for (const [name, expected] of [
  ['lists of parts', 'USER: see <image>\nASSISTANT:'],
  ['family chatml', '<|im_start|>user\nsee <image><|im_end|>\n<|im_start|>assistant\n'],
] as const) {
  test(`contents in parts: ${name}`, (t) => {
    t.is(new ChatTemplate(styles.find((style) => style.name === name)!.source).render(parts), expected);
  });
}

const refusals: readonly (readonly [what: string, render: () => unknown, message: RegExp])[] = [
  [
    'a template that refuses',
    () => new ChatTemplate("{{ raise_exception('no tools here') }}").render(hi),
    /chat template: .*no tools here/,
  ],
  ['a template that does not parse', () => new ChatTemplate('{% if %}'), /chat template does not parse: /],
  [
    'nothing to continue',
    () => new ChatTemplate('x').render([], { continueFinalMessage: true }),
    /no message to continue/,
  ],
  [
    'a message left out',
    () => new ChatTemplate('x').render(hi, { continueFinalMessage: true }),
    /leaves the last message out/,
  ],
];
for (const [what, render, message] of refusals) {
  test(`${what} is a bad request`, (t) => {
    t.is(t.throws(render, { instanceOf: SglangError, message })?.code, 'bad_request');
  });
}

test('a model has its own template, one named for it, or the one of its path', (t) => {
  t.is(renderChat({ ...card, chatTemplate: '{{ bos_token }}!', bosToken: '<b>' }, hi), '<b>!');
  t.is(renderChat({ ...card, chatTemplate: 'zephyr' }, hi), '<|user|>\nhi</s>\n<|assistant|>\n');
  t.is(renderChat({ ...card, modelPath: 'mistralai/Mistral-7B-Instruct-v0.2' }, hi), '<s>[INST] hi [/INST]');
  t.is(renderChat(card, hi), '<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n');
});

const paths: readonly (readonly [path: string, family: string])[] = [
  ['meta-llama/Llama-2-7b-chat-hf', 'llama-2'],
  ['meta-llama/Meta-Llama-3-8B-Instruct', 'llama-3'],
  ['mistralai/Mixtral-8x7B-Instruct-v0.1', 'mistral'],
  ['liuhaotian/llava-v1.5-7b', 'vicuna'],
  ['lmsys/vicuna-7b-v1.5', 'vicuna'],
  ['TinyLlama/TinyLlama-1.1B-Chat-v1.0', 'zephyr'],
  ['google/gemma-2b-it', 'gemma'],
  ['microsoft/Phi-3-mini-4k-instruct', 'phi'],
  ['Qwen/Qwen2.5-0.5B-Instruct', 'chatml'],
  ['NousResearch/Nous-Hermes-2-Mistral-7B-DPO', 'chatml'],
  ['somebody/unheard-of', 'chatml'],
];
for (const [path, family] of paths)
  test(`${path} is of the family ${family}`, (t) => t.is(familyOf(path).name, family));

test('families by example', (t) => {
  const talk = [
    { role: 'system', content: 'S' },
    { role: 'user', content: 'U' },
    { role: 'assistant', content: 'A' },
    { role: 'user', content: 'V' },
  ];
  const rendered = (chatTemplate: string) => renderChat({ ...card, chatTemplate }, talk);
  t.is(rendered('llama-2'), '<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A </s><s>[INST] V [/INST]');
  t.is(rendered('mistral'), '<s>[INST] S\n\nU [/INST] A</s>[INST] V [/INST]');
  t.is(rendered('vicuna'), '<s>S USER: U ASSISTANT: A</s>USER: V ASSISTANT:');
  t.is(
    rendered('gemma'),
    '<bos><start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n<start_of_turn>user\nV<end_of_turn>\n<start_of_turn>model\n',
  );
  t.is(
    rendered('phi'),
    '<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\nA<|end|>\n<|user|>\nV<|end|>\n<|assistant|>\n',
  );
  t.is(
    rendered('llama-3'),
    '<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>' +
      '<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nV<|eot_id|>' +
      '<|start_header_id|>assistant<|end_header_id|>\n\n',
  );
});

test('earlier calls are shown whether or not more may follow', (t) => {
  const call = (args: string) => ({ id: 'a', type: 'function' as const, function: { name: 'f', arguments: args } });
  const talk = [
    ...hi,
    { role: 'assistant', content: '', tool_calls: [call('{"x":1}')] },
    { role: 'tool', content: 'one', tool_call_id: 'a' },
  ];
  const own = '{% if tools %}<tool_call>{% endif %}{{ messages[1].tool_calls[0].function.arguments | tojson }}';
  t.is(renderChat({ ...card, chatTemplate: own }, talk), '{"x": 1}');
  const generic = renderChat(card, talk);
  t.regex(generic, /assistant\n<tool_call>\n\{"name": "f", "arguments": \{"x":1\}\}\n<\/tool_call><\|im_end\|>/);
  t.regex(generic, /<\|im_start\|>user\n<tool_response>\none\n<\/tool_response><\|im_end\|>/);
});
