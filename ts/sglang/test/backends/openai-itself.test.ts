/** What is different with OpenAI's own service; its address leads to a server of the test here. */
import test from 'ava';
import fc from 'fast-check';
import { Repetition } from '../../src/backends/json-values.ts';
import { UntilStop } from '../../src/backends/stop-strings.ts';
import { OpenAI, Speculative, fn, gen, select } from '../../src/index.ts';
import { scriptedServer, type Answer, type Asked } from './scripted-server.ts';

const usage = { prompt_tokens: 9, completion_tokens: 8 };
const said = (...pieces: string[]): Answer => {
  const deltas = pieces.map((content) => ({ choices: [{ index: 0, delta: { content }, finish_reason: null }] }));
  const end = { choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] };
  return { events: [...deltas, end, { choices: [], usage }, '[DONE]'] };
};
const { fetch: really } = globalThis;

/** Answers requests to OpenAI; tests run one after the other. */
async function answering(t: Parameters<typeof scriptedServer>[0], answer: (asked: Asked, nth: number) => Answer) {
  const { url, asked } = await scriptedServer(t, answer);
  globalThis.fetch = (address, init) => really(String(address).replace('https://api.openai.com/v1', url), init);
  t.teardown(() => (globalThis.fetch = really));
  return asked;
}

const form = fn((s) =>
  s.user('Fill in: Name, Job.').assistant('Name: ', gen('name', { stop: '\n' }), '\nJob: ', gen('job', { stop: '\n' })),
);

test.serial('a message that was begun and is written anew is not said twice', async (t) => {
  const asked = await answering(t, (_, nth) => said(...(nth === 0 ? ['Na', 'me: A', 'da'] : ['poet'])));
  const result = await form.run({}, { backend: new OpenAI('gpt-4o', { apiKey: 'k' }) });
  t.deepEqual(result.vars, { name: 'Ada', job: 'poet' });
  t.like(asked[0]!.body, { max_completion_tokens: 128, max_tokens: undefined });
});

test.serial('a stop string that was in what was begun does not end the model that repeats it', async (t) => {
  const again = ['Name', ': A', 'da\nJo', 'b: po', 'et', '\nAge: 36'];
  const asked = await answering(t, (_, nth) => said(...(nth === 0 ? ['Ada'] : again)));
  const result = await form.run({}, { backend: new OpenAI('gpt-4o', { apiKey: 'k' }) });
  t.deepEqual(result.vars, { name: 'Ada', job: 'poet' });
  t.deepEqual(
    asked.map(({ body }) => body.stop),
    [['\n'], undefined],
  );
  t.like(result.meta('job'), { finishReason: 'stop', promptTokens: 9, completionTokens: 8 });
});

test.serial('a whole turn that is written anew is one call', async (t) => {
  const asked = await answering(t, () => said('Name: Ada\n', 'Job: poet'));
  const backend = new Speculative(new OpenAI('gpt-4o', { apiKey: 'k' }), { tokens: 64 });
  t.deepEqual((await form.run({}, { backend })).vars, { name: 'Ada', job: 'poet' });
  t.deepEqual(backend.stats, { calls: 1, savedCalls: 1 });
  t.is(asked.length, 1);
});

test.serial('models with a temperature of their own are told none', async (t) => {
  const asked = await answering(t, () => said('{"value":"b"}'));
  const program = fn((s) => s.user('?').assistant(select('x', ['a', 'b'])));
  t.is((await program.run({}, { backend: new OpenAI('o3-mini', { apiKey: 'k' }) })).vars.x, 'b');
  t.is(asked[0]!.body.temperature, undefined);
});

test('where a text stops does not depend on the pieces', (t) => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 5 });
  const stops = fc.array(letters.filter(Boolean), { maxLength: 3 });
  fc.assert(
    fc.property(stops, fc.array(letters, { maxLength: 6 }), (stop, pieces) => {
      const until = new UntilStop(stop);
      const told = pieces.map((piece) => until.cut(piece)).join('') + until.rest();
      const whole = pieces.join('');
      // As a model writes it, letter by letter.
      let written = '';
      const isOver = () => stop.some((text) => written.endsWith(text));
      while (written.length < whole.length && !isOver()) written = whole.slice(0, written.length + 1);
      const ends = stop.filter((text) => written.endsWith(text)).map((text) => text.length);
      t.is(told, isOver() ? written.slice(0, -Math.max(...ends)) : whole);
      t.is(until.matched !== undefined, isOver());
    }),
    {
      numRuns: 5000,
      examples: [
        [
          ['abc', 'b'],
          ['ab', 'c'],
        ],
      ],
    },
  );
});

test('what is cut off does not depend on the pieces', (t) => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 5 });
  fc.assert(
    fc.property(letters, fc.array(letters, { maxLength: 6 }), (begun, pieces) => {
      const repeated = new Repetition(begun);
      const told = pieces.map((piece) => repeated.cut(piece)).join('') + repeated.rest();
      const whole = pieces.join('');
      t.is(told, whole.startsWith(begun) ? whole.slice(begun.length) : whole);
    }),
  );
});
