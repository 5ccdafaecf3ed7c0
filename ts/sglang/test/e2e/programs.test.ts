/**
 * Every program of `examples/programs`: what it prints on canned answers, word for word, and on the default model, where
 * a pattern tells sane output from nonsense. Uses the built package, as users do.
 */
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { inspect } from 'node:util';
import test from 'ava';
import { Engine, FakeBackend, setDefaultBackend, type Backend } from 'sglang';
import { cannedReplies } from '../../../../examples/canned.ts';
import { defaultModel } from '../engine/fixtures.ts';
import { outputOf } from '../node-process.ts';

const folder = new URL('../../../../examples/programs/', import.meta.url);

interface Expected {
  canned: string;
  /** Of the output on the default model. */
  sane: RegExp;
}

const programs: Record<string, Expected> = {
  few_shot_qa: {
    canned: `What is the opposite of hot? cold (computed)
What do bees make? honey (computed)
Which animal says meow? cat (computed)`,
    sane: /cold \(examples cached\)\n.*honey.*\n.*cat/,
  },
  react_agent: {
    canned: `Question: A car of a train has 64 seats. How many seats are in 8 cars?
Thought: I need to calculate 64 * 8.
Action: calculate[64 * 8]
Observation: 512
Thought: I know the answer, it is 512.
Action: finish[512]`,
    sane: /Observation: 512\n[^]*finish\[512\]$/,
  },
  generative_agents: {
    canned: `1 I had bread for breakfast.
1 A bus passed by.
8 Ben told me that he will marry.
1 A dog barked.
remembers: Ben told me that he will marry. A dog barked.
says: I am so happy for you!`,
    sane: /^1 .*bread[^]*[6-9] Ben[^]*remembers: Ben told me that he will marry\.[^]*says: \S/,
  },
  tree_of_thought: {
    canned: `How to make a cup of tea:
Step 1: Boil some water.
Step 2: Boil some water.
Step 3: Boil some water.
Done: The tea is ready.`,
    sane: /^How to make a cup of tea:\nStep 1: .*\nStep 2: .*\nStep 3: .*\nDone: .*tea/,
  },
  skeleton_of_thought: {
    canned: `Tips for staying healthy:
1. Sleep well.
2. Walk a lot.
3. Eat fruit.

Sleep well, because it gives you strength.
Walk a lot, because it trains the heart.
Eat fruit, because it has vitamins.`,
    sane: /^Tips for staying healthy:\n1\. .*\n2\. .*\n3\. .*\n\n(.+, because .+\.\n?){3}$/,
  },
  llm_judge: {
    canned: `Judgments:
clarity: It is easy to read.
originality: Many have said this before.
evidence: It names no source.
Give the essay a grade from A to D.
B`,
    sane: /\nclarity: .+\noriginality: .+\nevidence: .+\n[^]*\n[A-D][+-]?$/,
  },
  json_extraction: {
    canned: `{
  name: 'Paris',
  country: 'France',
  population: 2100000,
  capital: true
}`,
    sane: /name: 'Paris',\s+country: 'france',\s+population: 2100000,/i,
  },
  multi_turn_chat: {
    canned: `A tower with a light. (0 of 12 prompt tokens from the cache)
Ships at night. (0 of 22 prompt tokens from the cache)
On the coast. (0 of 31 prompt tokens from the cache)`,
    sane: /^A lighthouse is .*\nLighthouses are not just .*\nLighthouses are built .* \([1-9]\d+ of \d+ prompt tokens from the cache\)$/,
  },
  retrieval_pipeline: { canned: '1827 [lighthouse]', sane: /1827.* \[lighthouse\]$/ },
  speculative_calls: {
    canned: 'job: physicist, country: Germany\ncalls: 1, saved: 1',
    sane: /^job: \w.*, country: \w.*\ncalls: [12], saved: [01]$/,
  },
  self_consistency: {
    canned: 'Reasoning: (4 of 5 chains agree)\nAnswer: 7',
    sane: /\([2-5] of 5 chains agree\)\nAnswer: 7$/,
  },
  streaming_web_handler: {
    canned: 'It is salty, and it covers most of the Earth.',
    sane: /sea/,
  },
  typed_extraction: { canned: 'Friday, 18:00, library', sane: /^Friday, 18:00, library$/ },
  character_regex: {
    canned: `{
  name: 'Hermione Granger',
  house: 'Gryffindor',
  age: 17,
  wand: { wood: 'vine', inches: 10 },
  alive: true
}`,
    sane: /name: 'Hermione Granger'[^]*wand: \{ wood: '[a-z]+', inches: \d+ \}/,
  },
  parallel_sampling: {
    canned: `0.00 Swift.
0.00 Heron.
0.00 Pebble.
0.00 Breeze.
best: Swift.`,
    sane: /^(-\d\.\d\d \S.*\n){4}best: \S/,
  },
  composition: {
    canned: 'Rome is a city in Italy.\nMuch of it is pasta.',
    sane: /^Rome is .*\.\n.*culinary.*\.$/,
  },
  abort_and_keep: { canned: 'AbortError; kept: first', sane: /^AbortError; kept: first$/ },
  tool_calls: {
    canned: `user: What is 6 times 7?
assistant: {"tool": "multiply", "args": {"a":6,"b":7}}
user: Result: 42
assistant: 6 times 7 is 42.`,
    sane: /"multiply"[^]*Result: 42\nassistant: .*42/,
  },
};

/** Where what is printed has times in it. */
const timed: Record<string, RegExp> = {
  traced_run:
    /^run program .*\n├ warm .*\n├ branch 1 .*\n│ └ gen tip .*\n├ branch 2 .*\n│ └ gen tip .*\n└ gen summary .*\n$/,
};

let engine: Engine;
test.before(async () => {
  engine = await Engine.create({ modelPath: defaultModel });
});
test.after.always(() => engine.close());

/** What an example prints on a backend. */
async function printed(name: string, backend: Backend): Promise<string> {
  const { main } = (await import(new URL(`${name}.ts`, folder).href)) as { main(backend: Backend): Promise<void> };
  const lines: string[] = [];
  const { log } = console;
  console.log = (...values: unknown[]) =>
    void lines.push(values.map((value) => (typeof value === 'string' ? value : inspect(value))).join(' '));
  setDefaultBackend(backend);
  try {
    await main(backend);
  } finally {
    console.log = log;
  }
  return lines.join('\n');
}

test('every program is expected to print something', (t) => {
  const files = readdirSync(folder).filter((file) => file.endsWith('.ts'));
  t.deepEqual(files.map((file) => file.replace(/\.ts$/, '')).sort(), Object.keys({ ...programs, ...timed }).sort());
});

for (const [name, { canned, sane }] of Object.entries(programs)) {
  test.serial(`${name} on canned answers`, async (t) => {
    t.is(await printed(name, new FakeBackend({ replies: cannedReplies })), canned);
  });
  test.serial(`${name} on the default model`, async (t) => {
    t.regex(await printed(name, engine), sane);
  });
}

for (const [name, pattern] of Object.entries(timed)) {
  test.serial(name, async (t) => {
    t.regex(await printed(name, new FakeBackend({ replies: cannedReplies })), pattern);
    t.regex(await printed(name, engine), pattern);
  });
}

test('the tests of the examples pass on their recording', async (t) => {
  const file = fileURLToPath(new URL('../testing/few_shot_qa.test.ts', folder));
  const args = ['--import=tsx', '--test', '--test-reporter=tap', file];
  const { NODE_TEST_CONTEXT: _none, ...env } = process.env;
  t.regex((await outputOf(t, args, { env })).stdout, /^# pass 2$/m);
});
