/** Every construct that published chat templates use, rendered as Python's jinja2 renders it; see constructs/make.py. */
import { readFileSync } from 'node:fs';
import { mock } from 'node:test';
import test from 'ava';
import type { ChatMessage } from '../../src/engine/types.ts';
import { ChatTemplate } from '../../src/templates/chat-template.ts';

interface Case {
  name: string;
  template: string;
  variables: string;
  expected?: string;
  refused?: string;
}

interface Variables {
  bos_token?: string;
  eos_token?: string;
  messages?: ChatMessage[];
}

const {
  now,
  variables: sets,
  cases,
} = JSON.parse(readFileSync(new URL('constructs/constructs.json', import.meta.url), 'utf8')) as {
  now: string;
  variables: Record<string, Variables>;
  cases: Case[];
};
/**
 * Where we differ from jinja2; a test that begins to pass must be taken off the list. The library's parser knows no chains
 * of comparisons and no tests with arguments; a message without content is an empty one here, as in the original.
 */
const unlike = new Set([
  '1 < 2 <= 2',
  "messages | rejectattr('role', 'equalto', 'user') | map(attribute='content') | map('trim') | join('|')",
  "'x' is in ['x']",
  '1 is eq(1)',
]);

mock.timers.enable({ apis: ['Date'], now: new Date(now) });

for (const { name, template, variables, expected, refused } of cases) {
  (unlike.has(name) ? test.failing : test)(name, (t) => {
    const { bos_token, eos_token, messages = [], ...others } = sets[variables]!;
    const render = () =>
      new ChatTemplate(template, { bosToken: bos_token, eosToken: eos_token }).render(messages, { variables: others });
    if (refused === undefined) t.is(render(), expected!);
    else t.true(t.throws(render)!.message.includes(refused!));
  });
}
