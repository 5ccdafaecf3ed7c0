/**
 * `npm run bench -- language`: programs of the language beside the same programs written by hand with OpenAI's client,
 * on one server. Law: all variants ask the same questions with the same seeds and must get the same texts; each run
 * starts with an empty cache.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { describeMachine } from './machine.mjs';
import { saveText } from './record.mjs';

const cli = fileURLToPath(new URL('../ts/sglang/dist/cli.js', import.meta.url));
const MODEL = 'smollm2-135m-instruct';
const ROUNDS = 3;
const BRANCHES = [0, 1, 2];
const ROWS = Array.from({ length: 100 }, (_, i) => ({
  question: `What is the name of country number ${i + 1} on your list?`,
}));

const rules =
  'You solve problems step by step. First you propose a plan, then you carry it out, then you rate the answer.';
const problem = 'A train of 12 cars with 48 seats each is two thirds full. How many more people can sit down?';
const shots = Array.from(
  { length: 8 },
  (_, i) => `Q: What is ${i + 3} plus ${i + 4}, in digits?\nA: It is ${2 * i + 7}.\n`,
).join('');
const steps = {
  plan: (i) => ({ maxTokens: 32, temperature: 0.8, seed: i }),
  answer: (i, j) => ({ maxTokens: 48, temperature: 0.8, seed: 10 * i + j }),
  score: { maxTokens: 8, temperature: 0, seed: 0 },
};
const row = { maxTokens: 16, temperature: 0, stop: '\n', seed: 0 };

/** Three plans, of each three answers, of each a rating. */
function inTheLanguage({ fn, gen, RuntimeEndpoint }, url) {
  const backend = new RuntimeEndpoint(url);
  const tree = fn(async (s) => {
    const plans = await s
      .system(rules)
      .user(`${problem}\nPropose a plan.`)
      .forkMap(BRANCHES, async (branch, i) => {
        const planned = branch.assistant(gen('plan', steps.plan(i))).user('Carry it out.');
        const answers = await planned.forkMap(BRANCHES, (leaf, j) =>
          leaf
            .assistant(gen('answer', steps.answer(i, j)))
            .user('Rate this from 1 to 10.')
            .assistant(gen('score', steps.score)),
        );
        texts.push(...answers.map(({ vars }) => `${vars.plan}|${vars.answer}|${vars.score}`));
        return branch;
      });
    return s.user(`${plans.length} plans.`);
  });
  let texts = [];
  const qa = fn((s, { question }) => s`${shots}Q: ${question}\nA:${gen('answer', row)}`);
  return {
    tree: async () => {
      texts = [];
      await tree.run({}, { backend });
      return texts.sort();
    },
    rows: async () => (await qa.runBatch(ROWS, { backend, concurrency: ROWS.length })).map(({ vars }) => vars.answer),
  };
}

/** `map` runs an async function on each item, all at once or one after the other. */
function byHand(client, map) {
  const sampling = ({ maxTokens, ...same }) => ({ model: MODEL, max_tokens: maxTokens, ...same });
  const chat = async (messages, options) =>
    (await client.chat.completions.create({ messages, ...sampling(options) })).choices[0].message.content;
  const complete = async (prompt, options) =>
    (await client.completions.create({ prompt, ...sampling(options) })).choices[0].text;
  const said = (messages, answer, next) => [
    ...messages,
    { role: 'assistant', content: answer },
    { role: 'user', content: next },
  ];
  const head = [
    { role: 'system', content: rules },
    { role: 'user', content: `${problem}\nPropose a plan.` },
  ];
  return {
    tree: async () => {
      const texts = await map(BRANCHES, async (i) => {
        const plan = await chat(head, steps.plan(i));
        const planned = said(head, plan, 'Carry it out.');
        return map(BRANCHES, async (j) => {
          const answer = await chat(planned, steps.answer(i, j));
          const score = await chat(said(planned, answer, 'Rate this from 1 to 10.'), steps.score);
          return `${plan}|${answer}|${score}`;
        });
      });
      return texts.flat().sort();
    },
    rows: () => map(ROWS, ({ question }) => complete(`${shots}Q: ${question}\nA:`, row)),
  };
}

const atOnce = (items, ask) => Promise.all(items.map(ask));
async function inTurn(items, ask) {
  const results = [];
  for (const item of items) results.push(await ask(item));
  return results;
}

async function served() {
  const probe = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => probe.once('listening', resolve));
  const { port } = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  const args = [cli, 'serve', '--model-path', MODEL, '--port', `${port}`, '--log-level', 'error'];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  const url = `http://127.0.0.1:${port}`;
  while (!(await fetch(`${url}/health`).catch(() => null))?.ok) {
    if (child.exitCode !== null) throw new Error('the server ended before it answered');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return { url, stop: () => new Promise((resolve) => (child.once('close', resolve), child.kill())) };
}

/** Seconds of each run, by variant; the first round warms up and is not counted. */
async function measure(url, variants, program) {
  const seconds = Object.fromEntries(Object.keys(variants).map((name) => [name, []]));
  let expected;
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [name, programs] of Object.entries(variants)) {
      await fetch(`${url}/flush_cache`, { method: 'POST' });
      const start = performance.now();
      const texts = await programs[program]();
      if (round > 0) seconds[name].push((performance.now() - start) / 1000);
      expected ??= texts;
      assert.deepEqual(texts, expected, `${name} said something else`);
    }
  }
  return seconds;
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];

export async function benchLanguage() {
  const { default: OpenAI } = await import('openai');
  const { url, stop } = await served();
  try {
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none' });
    const variants = {
      language: inTheLanguage(await import('../ts/sglang/dist/index.js'), url),
      'by hand, one by one': byHand(client, inTurn),
      'by hand, Promise.all': byHand(client, atOnce),
    };
    const titles = { tree: 'tree of thought, 21 calls', rows: `${ROWS.length} rows, one call each` };
    const machine = describeMachine();
    const lines = [
      `${machine.cpu}, ${machine.cores} cores; ${MODEL}; medians of ${ROUNDS} interleaved rounds, empty cache`,
    ];
    lines.push('| program | variant | seconds | it ÷ language |', '| --- | --- | --- | --- |');
    for (const [program, title] of Object.entries(titles)) {
      const seconds = await measure(url, variants, program);
      const ours = median(seconds.language);
      for (const [name, runs] of Object.entries(seconds))
        lines.push(`| ${title} | ${name} | ${median(runs).toFixed(2)} | ${(median(runs) / ours).toFixed(2)} × |`);
    }
    const text = `${lines.join('\n')}\n`;
    console.log(`\n${text}\nrecord: ${saveText(machine, new Date().toISOString(), text, 'language')}`);
  } finally {
    await stop();
  }
}
