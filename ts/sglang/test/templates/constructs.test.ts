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
/** Where we differ from jinja2, on purpose: a message without content is an empty one here, as in the original. */
const ours: Readonly<Record<string, string>> = {
  "messages | rejectattr('role', 'equalto', 'user') | map(attribute='content') | map('trim') | join('|')":
    'Be brief.|Hello!||12 °C',
};

mock.timers.enable({ apis: ['Date'], now: new Date(now) });

for (const { name, template, variables, expected, refused } of cases) {
  test(name, (t) => {
    const { bos_token, eos_token, messages = [], ...others } = sets[variables]!;
    const render = () =>
      new ChatTemplate(template, { bosToken: bos_token, eosToken: eos_token }).render(messages, { variables: others });
    if (refused === undefined) t.is(render(), ours[name] ?? expected!);
    else t.true(t.throws(render)!.message.includes(refused!));
  });
}
