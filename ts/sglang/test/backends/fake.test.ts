/** The fake backend: deterministic, scripted, and honest about limits. */
import test from 'ava';
import { FakeBackend, fn, gen, select, type GenerateOptions, type Turn } from '../../src/index.ts';

const turns = (text: string): Turn[] => [{ role: null, content: [text], open: true }];
async function reply(backend: FakeBackend, prompt: string, options: GenerateOptions = {}) {
  let text = '';
  for await (const delta of backend.stream(turns(prompt), options)) {
    text += delta.text;
    if (delta.meta) return { text, ...delta.meta };
  }
  throw new Error('no closing piece');
}

test('the same prompt gives the same text, another prompt or seed another', async (t) => {
  const [a, again, b, seeded] = await Promise.all([
    reply(new FakeBackend(), 'a'),
    reply(new FakeBackend({ pieceLength: 1 }), 'a'),
    reply(new FakeBackend(), 'b'),
    reply(new FakeBackend(), 'a', { seed: 1 }),
  ]);
  t.deepEqual(a, again);
  t.is(new Set([a.text, b.text, seeded.text]).size, 3);
});

test('the pattern nearest to the end decides', async (t) => {
  const backend = new FakeBackend({
    replies: [
      ['France', 'Paris'],
      [/UK|Japan/, (prompt) => `[${prompt.slice(-5)}]`],
    ],
  });
  t.is((await reply(backend, 'UK, then France')).text, 'Paris');
  t.is((await reply(backend, 'France, then Japan')).text, '[Japan]');
});

test('stop strings and limits cut, and the closing piece says so', async (t) => {
  const backend = new FakeBackend({ replies: [['x', 'one two three']] });
  t.like(await reply(backend, 'x', { stop: ['three', ' two'] }), {
    text: 'one',
    finishReason: 'stop',
    matched: ' two',
    completionTokens: 1,
  });
  t.like(await reply(backend, 'x', { maxTokens: 2 }), { text: 'one two', finishReason: 'length', matched: null });
  t.like(await reply(backend, 'x', { maxTokens: 3 }), { text: 'one two three', finishReason: 'stop' });
});

test('it makes up values of types and schemas, but none of a regex', async (t) => {
  const jsonSchema = JSON.stringify({
    type: 'object',
    properties: {
      a: { type: 'string' },
      b: { enum: [3, 4] },
      c: { anyOf: [{ type: 'integer' }] },
      d: { type: 'array' },
    },
  });
  t.deepEqual(JSON.parse((await reply(new FakeBackend(), 'x', { jsonSchema })).text), { a: 'text', b: 3, c: 1, d: [] });
  t.is((await reply(new FakeBackend(), 'x', { valueType: 'int', regex: 'z' })).text, '42');
  await t.throwsAsync(reply(new FakeBackend(), 'x', { regex: 'z' }), { message: /give it a reply/ });
});

test('select takes the choice that a reply means, else one by hash', async (t) => {
  const pick = fn((s) => s`pick ${select('x', ['red', 'green', 'blue'])}`);
  t.is((await pick.run({}, { backend: new FakeBackend({ replies: [['pick', 'Green.']] }) })).vars.x, 'green');
  const hashed = await pick.run({}, { backend: new FakeBackend() });
  t.is((await pick.run({}, { backend: new FakeBackend() })).vars.x, hashed.vars.x);
});

test('an abort ends a stream between pieces', async (t) => {
  const backend = new FakeBackend({ pieceLength: 1 });
  const run = fn((s) => s`x${gen('a')}`).run({}, { backend });
  const error = await t.throwsAsync(async () => {
    for await (const _ of run.textStream('a')) run.abort(new Error('enough'));
  });
  t.is(error?.message, 'enough');
});
