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
/** Where @huggingface/jinja differs from jinja2; a test that begins to pass must be taken off the list. */
const unlike = new Set([
  'scopes',
  'recursive macros',
  'raw text',
  'truth values',
  'white space is kept',
  '1 < 2 <= 2',
  '[1, 2] == [1, 2]',
  "'ab' * 2",
  "'xxaxx'.strip('x')",
  "'abc'.find('c')",
  'messages[0].keys() | list',
  '[1, 2] | sum',
  '[4, 9] | max',
  '[4, 9] | min',
  "['b', 'a'] | sort(reverse=true)",
  "messages | rejectattr('role', 'equalto', 'user') | map(attribute='content') | map('trim') | join('|')",
  "[1, none, 2] | select('defined') | list | length",
  "['', 'a'] | select | list",
  "'aBc' | capitalize",
  "'abc' | list",
  '2.567 | round(1)',
  "none | default('f')",
  '2.5 is float',
  "'x' is in ['x']",
  '1 is eq(1)',
  'none',
  "[1, 'a', none]",
  "{'k': 'v', 'n': 1.5}",
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
