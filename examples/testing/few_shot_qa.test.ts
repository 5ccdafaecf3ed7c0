/** How a program is tested without a model: on replies that the test sets, and on answers that were recorded once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Engine } from 'sglang';
import { FakeBackend, recorded } from 'sglang/testing';
import { fewShotQa } from '../programs/few_shot_qa.ts';

// #region fake
test('the question comes last, and the answer ends with its line', async () => {
  const backend = new FakeBackend({ replies: [['opposite of hot?', ' cold\n\nQuestion: and so on']] });
  const { vars } = await fewShotQa.run({ question: 'What is the opposite of hot?' }, { backend });
  assert.equal(vars.answer, ' cold');
  assert.match(backend.calls.at(-1)!.prompt, /Question: What is the opposite of hot\?\nAnswer:$/);
});
// #endregion fake

// #region recorded
const answers = fileURLToPath(new URL('few_shot_qa.json', import.meta.url));
const backend = recorded(answers, () => Engine.create({ modelPath: 'smollm2-135m-instruct' }));

test('the model knows opposites', async () => {
  const { vars } = await fewShotQa.run({ question: 'What is the opposite of hot?' }, { backend, temperature: 0 });
  assert.equal(vars.answer, ' cold');
});
// #endregion recorded
