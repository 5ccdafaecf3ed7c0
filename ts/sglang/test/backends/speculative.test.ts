/** Speculative calls: what is saved, what is not, and that the program's result is that of a model asked once per turn. */
import test from 'ava';
import { FakeBackend, OpenAI, Speculative, fn, gen, type FakeReply } from '../../src/index.ts';
import { scriptedServer } from './scripted-server.ts';

const form = fn((s) =>
  s
    .user('Fill in the form.')
    .assistant('Name: ', gen('name', { stop: '\n' }), '\nJob: ', gen('job', { stop: '\n' }), '\nAge: ', gen('age')),
);
const model = (reply: FakeReply) => new FakeBackend({ replies: [[/Name: $/, reply]], pieceLength: 3 });

test('several generations of a turn are one call where the model goes on as the program does', async (t) => {
  const fake = model('Ada\nJob: poet\nAge: 36');
  const backend = new Speculative(fake, { tokens: 50 });
  const run = form.run({}, { backend, temperature: 0, maxTokens: 20 });
  const streamed: string[] = [];
  for await (const delta of run.textStream('name')) streamed.push(delta);
  t.is(streamed.join(''), 'Ada', 'nothing beyond the stop string is told');
  const result = await run;
  t.deepEqual(result.vars, { name: 'Ada', job: 'poet', age: '36' });
  t.deepEqual(backend.stats, { calls: 1, savedCalls: 2 });
  t.like(fake.calls[0]!.options, { stop: [], maxTokens: 70 });
  t.is(result.meta('name').speculated, undefined);
  t.like(result.meta('job'), { speculated: true, promptTokens: 0, completionTokens: 0, finishReason: 'stop' });
});

for (const [what, reply, calls] of [
  ['goes on differently', 'Ada\nProfession: poet', 3],
  ['ends after the first', 'Ada\n', 3],
  ['goes on as the program does for a while', 'Ada\nJob: poet\n', 2],
] as const) {
  test(`a model that ${what} is asked again`, async (t) => {
    const fake = new FakeBackend({
      replies: [
        [/Name: $/, reply],
        [/Job: $/, 'poet\n'],
        [/Age: $/, '36'],
      ],
    });
    const backend = new Speculative(fake);
    t.deepEqual((await form.run({}, { backend })).vars, { name: 'Ada', job: 'poet', age: '36' });
    t.is(backend.stats.calls, calls);
    t.is(fake.calls.length, calls);
  });
}

test('no text answers twice: equal prompts have samples of their own', async (t) => {
  let nth = 0;
  const fake = model(() => `Ada\nJob: poet ${nth}\nAge: ${nth++}`);
  const backend = new Speculative(fake);
  const states = await form.runBatch([{}, {}, {}], { backend });
  t.deepEqual(states.map(({ vars }) => vars.age).sort(), ['0', '1', '2']);
  t.deepEqual(states.map(({ vars }) => vars.job).sort(), ['poet 0', 'poet 1', 'poet 2']);
  t.deepEqual(backend.stats, { calls: 3, savedCalls: 6 });
});

test('other sampling, a constraint, a limit and flushing are no reason to answer from kept text', async (t) => {
  const asked = async (second: object, flush = false) => {
    const backend = new Speculative(
      new FakeBackend({
        replies: [
          ['A: ', 'x\nB: y y\n'],
          ['B: ', 'z\n'],
        ],
      }),
    );
    const program = fn(async (s) => {
      await s`A: ${gen('a', { stop: '\n' })}`.get('a');
      if (flush) await backend.flushCache();
      return s`\nB: ${gen('b', { stop: '\n', ...second })}`;
    });
    return [(await program.run({}, { backend })).vars.b, backend.stats.savedCalls];
  };
  t.deepEqual(await asked({}), ['y y', 1]);
  t.deepEqual(await asked({ temperature: 0.3 }), ['z', 0]);
  t.deepEqual(await asked({ regex: /z/ }), ['z', 0]);
  t.deepEqual(await asked({ logprobs: true }), ['z', 0]);
  t.deepEqual(await asked({ maxTokens: 1 }), ['z', 0]);
  t.deepEqual(await asked({}, true), ['z', 0]);
});

test('over OpenAI’s wire the turn is one request', async (t) => {
  const text = 'Ada\nJob: poet\nAge: 36';
  const { url, asked } = await scriptedServer(t, () => ({
    events: [
      { choices: [{ index: 0, delta: { content: text }, finish_reason: 'stop' }] },
      { choices: [], usage: { prompt_tokens: 9, completion_tokens: 8 } },
      '[DONE]',
    ],
  }));
  const backend = new Speculative(new OpenAI('m', { baseURL: url }), { tokens: 30 });
  t.deepEqual((await form.run({}, { backend })).vars, { name: 'Ada', job: 'poet', age: '36' });
  t.is(asked.length, 1);
  t.like(asked[0]!.body, { max_tokens: 158, stop: undefined });
});
