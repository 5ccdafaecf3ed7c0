/** Values of a type, and choices, end to end: from the program through the language to the engine's own model and back. */
import test from 'ava';
import { z } from 'zod';
import { fn, gen, select } from '../../src/index.ts';
import type { SamplingParams } from '../../src/engine/types.ts';
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

const digit = z.number().int().min(0).max(9);
const Tree = z.object({
  a: digit,
  get next() {
    return z.union([Tree, z.null()]);
  },
});
const Named = z.object({ a: digit }).meta({ id: 'Named' });
const together: Record<string, [schema: z.ZodType, keys: RegExp]> = {
  'two objects': [z.intersection(z.object({ a: digit }), z.object({ b: digit })), /^a,b$/],
  'an object and one of two': [
    z.object({ a: digit }).and(z.union([z.object({ b: digit }), z.object({ c: digit })])),
    /^a,[bc]$/,
  ],
  'three, one within another': [
    z.intersection(z.object({ a: digit }), z.intersection(z.object({ b: digit }), z.object({ c: digit }))),
    /^a,b,c$/,
  ],
  'objects that are referred to': [
    z.object({ one: Named, both: z.intersection(Named, z.object({ b: digit })) }),
    /^one,both$/,
  ],
  'an object that contains itself': [z.intersection(Tree, z.object({ b: digit })), /^a,next,b$/],
};
for (const [what, [schema, keys]] of Object.entries(together)) {
  test(`schemas that describe one object together: ${what}`, async (t) => {
    const program = fn((s) => s`V: ${gen('value', { schema, maxTokens: 400, ...hot })}`);
    const value = (await program.run({}, { backend: engine })).vars.value as object;
    t.regex(Object.keys(value).join(), keys);
  });
}

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
  for (const i of [0, 1, 500, 999]) {
    const byHand = mean(await logprobsOf(head, choices[i]!));
    t.true(Math.abs(scores![i]! - byHand) < 1e-9, `${choices[i]}: ${scores![i]}, by hand ${byHand}`);
  }
});

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Log-probabilities of the tokens that a choice adds to a text: after it, or alone, where the first has none. */
async function logprobsOf(head: string, choice: string, where: 'after' | 'alone' = 'after'): Promise<number[]> {
  const prompt = engine.tokenize(head);
  const whole = engine.tokenize(head + choice);
  const added = whole.slice(whole.findIndex((id, at) => id !== prompt[at]));
  const { meta } = await engine.generate({
    inputIds: where === 'after' ? whole : added,
    returnLogprob: true,
    logprobStartLen: 0,
    samplingParams: { maxNewTokens: 0 },
  });
  return meta.inputLogprobs!.tokens.slice(-added.length).map(({ logprob }) => logprob ?? 0);
}

test('each method of choice scores as by hand', async (t) => {
  const choices = ['no', 'yes, surely', 'perhaps', 'no, never'] as const;
  const head = 'I would say ';
  const own = await Promise.all(choices.map((choice) => logprobsOf(head, choice)));
  const alone = await Promise.all(choices.map((choice) => logprobsOf(head, choice, 'alone')));
  // A position at a time, those whose token is the likeliest stay; one that is over counts by its mean.
  const stays = own.map((_, i) => {
    let left = own.map((_, k) => k);
    for (let at = 0; ; at++) {
      const value = (k: number) => own[k]![at] ?? mean(own[k]!);
      const next = left.filter((k) => value(k) === Math.max(...left.map(value)));
      if (left.length === 1 || !next.includes(i)) return left.includes(i) ? at : 0;
      left = next;
    }
  });
  const expected = {
    token_length_normalized: own.map(mean),
    greedy_token_selection: stays,
    unconditional_likelihood_normalized: own.map((values, i) => mean(values) - mean(alone[i]!)),
  };
  for (const [method, scores] of Object.entries(expected)) {
    const program = fn((s) => s(head, select('x', choices, { method: method as keyof typeof expected })));
    const result = await program.run({}, { backend: engine });
    const given = result.meta('x').scores!;
    t.true(
      given.every((score, i) => Math.abs(score - scores[i]!) < 1e-9),
      `${method}: ${given}, by hand ${scores}`,
    );
    t.is(result.vars.x, choices[scores.indexOf(Math.max(...scores))]!);
  }
});

test('a mix in one batch answers as each request alone', async (t) => {
  const schema = {
    type: 'object',
    properties: { a: { type: 'integer' }, b: { enum: ['x', 'y'] } },
    required: ['a', 'b'],
  };
  const asked: SamplingParams[] = [
    { maxNewTokens: 20 },
    { regex: '[a-z]{5,9}x\\d', n: 3 },
    { jsonSchema: JSON.stringify(schema), stop: '"b' },
    { ebnf: 'root ::= "(" root ")" | "x"', maxNewTokens: 6 },
    { maxNewTokens: 20, stop: 'e', n: 2 },
    { lark: 'start: "<" start ">" | /[a-c]/', temperature: 0, maxNewTokens: 12 },
    { regex: '.{300}', maxNewTokens: 300 },
  ];
  const ask = async (more: SamplingParams, at: number, signal?: AbortSignal) => {
    const samplingParams = { ...hot, ...more };
    const prompt = `Say ${at}: `;
    const answers = await engine.generate({ prompt, samplingParams, returnLogprob: at % 2 === 1, signal }).all();
    return answers.map(({ text, meta }) => [text, meta.finishReason, meta.outputLogprobs]);
  };
  const last = asked.length - 1;
  const alone = [];
  for (const [at, more] of asked.slice(0, last).entries()) alone.push(await ask(more, at));
  const abort = new AbortController();
  const aborted = t.throwsAsync(ask(asked[last]!, last, abort.signal), { any: true });
  const together = asked.slice(0, last).map((more, at) => ask(more, at));
  abort.abort();
  await aborted;
  t.deepEqual(await Promise.all(together), alone);
});
