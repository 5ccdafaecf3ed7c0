/** The README's programs on the default model: their form, not their wisdom. Uses the built package, as users do. */
import { isIPv4 } from 'node:net';
import test from 'ava';
import { Engine, setDefaultBackend } from 'sglang';
import { dnsServer } from '../../../../examples/quick_start/constrained.ts';
import { controlFlow } from '../../../../examples/quick_start/control_flow.ts';
import { multiTurn } from '../../../../examples/quick_start/multi_turn.ts';
import { tipSuggestion } from '../../../../examples/quick_start/parallel.ts';
import { textQa } from '../../../../examples/quick_start/text_qa.ts';
import { defaultModel } from '../engine/fixtures.ts';

let engine: Engine;

test.before(async () => {
  engine = await Engine.create({ modelPath: defaultModel });
  setDefaultBackend(engine);
});
test.after.always(() => engine.close());

test.serial('several turns', async (t) => {
  const questions = { q1: 'What is the capital of the United States?', q2: 'List two local attractions.' };
  const state = await multiTurn.run(questions, { temperature: 0 });
  t.deepEqual(
    state.messages().map(({ role }) => role),
    ['system', 'user', 'assistant', 'user', 'assistant'],
  );
  t.regex(state.vars.answer1, /^The capital of the United States is /);
  t.true(state.vars.answer2.length > 0);
  t.true(
    state.meta('answer2').cachedTokens >= state.meta('answer1').promptTokens,
    'the first turn came from the cache',
  );
});

test.serial('control flow', async (t) => {
  const { vars } = await controlFlow.run({ question: 'How much is 6 times 7?' }, { temperature: 0, maxTokens: 16 });
  t.true(vars.tool === 'calculator' ? vars.expression !== undefined : vars.url !== undefined);
});

test.serial('parallel branches share what came before them', async (t) => {
  const before = engine.stats();
  const state = await tipSuggestion.run(undefined, { temperature: 0, maxTokens: 24 });
  t.regex(state.text(), /^Here are two tips for staying healthy: .*Tip 1:.*Tip 2:.*In summary/s);
  const head = engine.tokenize(state.text().split('Tip 1:')[0]!.trimEnd()).length;
  const cached = engine.stats().cachedPromptTokensTotal - before.cachedPromptTokensTotal;
  t.true(cached >= 3 * head, `${cached} prompt tokens came from the cache; two branches and a summary share ${head}`);
});

test.serial('a batch', async (t) => {
  const countries = ['the United Kingdom', 'France', 'Japan'];
  const rows = countries.map((country) => ({ question: `What is the capital of ${country}?` }));
  const states = await textQa.runBatch(rows, { temperature: 0, maxTokens: 32 });
  const alone = await textQa.run(rows[2]!, { temperature: 0, maxTokens: 32 });
  t.is(states[2]!.vars.answer, alone.vars.answer, 'a row of a batch says what it says alone');
  t.true(states.every(({ vars }) => !vars.answer.includes('\n')));
});

test.serial('a constraint holds for any model', async (t) => {
  const { vars } = await dnsServer.run();
  t.true(isIPv4(vars.answer), vars.answer);
});

test.serial('a stream', async (t) => {
  const run = textQa.run({ question: 'What is the capital of France?' }, { temperature: 0.1, seed: 3, maxTokens: 32 });
  const pieces: string[] = [];
  for await (const delta of run.textStream('answer')) pieces.push(delta);
  t.is(pieces.join(''), (await run).vars.answer);
  t.true(pieces.length > 1);
});
