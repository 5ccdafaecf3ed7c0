/** Values of a type, and choices, end to end: from the program through the language to the engine's own model and back. */
import test from 'ava';
import { z } from 'zod';
import { fn, gen, select } from '../../src/index.ts';
import type { Engine } from '../../src/engine/engine.ts';
import { tinyEngine } from '../engine/fixtures.ts';

let engine: Engine;
test.before(async () => {
  engine = await tinyEngine();
});
test.after.always(() => engine?.close());

const hot = { temperature: 1.5, seed: 3 };

test('a value has the type that was asked for', async (t) => {
  const program = fn(
    (s) =>
      s`Say: ${gen('int', { type: 'int' })} ${gen('float', { type: 'float' })} ${gen('bool', { type: 'bool' })}
      ${gen('string', { type: 'string', maxTokens: 400 })}`,
  );
  const { vars } = await program.run({}, { backend: engine, ...hot });
  t.true(Number.isInteger(vars.int), String(vars.int));
  t.is(typeof vars.float, 'number');
  t.is(typeof vars.bool, 'boolean');
  t.is(typeof vars.string, 'string');
});

test('a zod schema is grammar, parser, validator and type', async (t) => {
  const Person = z.object({
    name: z.string().max(8),
    age: z.number().int().min(0).max(120),
    mood: z.enum(['good', 'bad']),
    tags: z.array(z.string().max(3)).max(2),
    nick: z.string().max(4).nullable(),
    born: z.iso.date().transform((text) => new Date(text)),
  });
  const program = fn((s) => s`Person: ${gen('person', { schema: Person, maxTokens: 400 })}`);
  for (let seed = 0; seed < 5; seed++) {
    const { person } = (await program.run({}, { backend: engine, temperature: 1.5, seed })).vars;
    t.true(person.born instanceof Date);
    t.true(person.age >= 0 && person.age <= 120 && ['good', 'bad'].includes(person.mood), JSON.stringify(person));
  }
});

test('samples, stops, seeds, log-probabilities and limits are what they are without a constraint', async (t) => {
  const ask = (more: object) =>
    engine
      .generate({ prompt: 'Say: ', samplingParams: { regex: '[a-z]{5,9}x\\d', ...hot, ...more }, returnLogprob: true })
      .all();
  const samples = await ask({ n: 3 });
  t.is(samples.length, 3);
  for (const { text, outputIds, meta } of samples) {
    t.regex(text, /^[a-z]{5,9}x\d$/);
    t.is(meta.outputLogprobs!.tokens.length, outputIds.length);
  }
  const texts = (list: typeof samples) => list.map(({ text }) => text);
  t.deepEqual(texts(await ask({ n: 3 })), texts(samples));
  const [stopped] = await ask({ stop: 'x' });
  t.regex(stopped!.text, /^[a-w]*$/);
  t.deepEqual(stopped!.meta.finishReason, { type: 'stop', matched: 'x' });
  const [cut] = await ask({ maxNewTokens: 2 });
  t.is(cut!.meta.finishReason.type, 'length');
});

const many = (n: number) => Array.from({ length: n }, (_, i) => `number ${i * 7919}`) as [string, ...string[]];

test('choices: a thousand, each scored as by hand', async (t) => {
  const choices = many(1000);
  const head = 'The text before all choices is longer than any of them, so it is computed once. I choose ';
  const result = await fn((s) => s(head, select('x', choices))).run({}, { backend: engine });
  const { scores } = result.meta('x');
  t.is(scores!.length, 1000);
  t.is(result.vars.x, choices[scores!.indexOf(Math.max(...scores!))]!);
  const prompt = engine.tokenize(head);
  for (const i of [0, 1, 500, 999]) {
    const ids = engine.tokenize(head + choices[i]!);
    const differs = ids.findIndex((id, at) => id !== prompt[at]);
    const { meta } = await engine.generate({
      inputIds: ids,
      returnLogprob: true,
      logprobStartLen: 0,
      samplingParams: { maxNewTokens: 0 },
    });
    const own = meta.inputLogprobs!.tokens.slice(differs).map(({ logprob }) => logprob!);
    const mean = own.reduce((sum, value) => sum + value, 0) / own.length;
    t.true(Math.abs(scores![i]! - mean) < 1e-9, `${choices[i]}: ${scores![i]}, by hand ${mean}`);
  }
});
