/** A recording answers as the backend did that it was made with. */
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { fn, gen, image, select, Trace, type Backend } from '../../src/index.ts';
import { FakeBackend, recorded } from '../../src/testing/index.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'sglang-recorded-'));
let files = 0;
const newFile = () => path.join(folder, 'made', `${files++}.json`);
const noLive = (): never => {
  throw new Error('a replay asked for the live backend');
};

/** Answers `1`, `2`, … and renders prompts in capitals. */
class Counting extends FakeBackend {
  #calls = 0;

  constructor() {
    super({ replies: [[/$/, () => `${++this.#calls}.`]] });
  }

  async render(turns: Parameters<Backend['stream']>[0]): Promise<string> {
    return JSON.stringify(turns).toUpperCase();
  }
}

const talk = fn(async (s, { topic }: { topic: string }) => {
  const [a, b] = s
    .user(image(new Uint8Array([1, 2, 3])), topic)
    .assistant(gen('x', { logprobs: 2 }))
    .fork(2);
  await Promise.all([a.user`Go`.assistant(gen('y')), b.user`Go`.assistant(gen('y'))]);
  return b.user`Which?`.assistant(select('pick', ['1', '3']));
});

test('a replay says what was recorded, also of equal calls, without the live backend', async (t) => {
  const file = newFile();
  const run = async (backend: Backend) => {
    const state = await talk.run({ topic: 'seas' }, { backend, trace: new Trace() });
    return [state.vars, state.text(), state.messages(), state.meta('x')];
  };
  const live = await run(recorded(file, () => new Counting(), { record: true }));
  t.deepEqual(await run(recorded(file, noLive, { record: false })), live);
  t.deepEqual(await run(recorded(file, noLive, { record: false })), live);
});

test('streams come in the pieces they came in', async (t) => {
  const file = newFile();
  const pieces = async (backend: Backend) => {
    const all: string[] = [];
    const run = fn((s) => s`Once${gen('story')}`).run({}, { backend });
    for await (const piece of run.textStream('story')) all.push(piece);
    return all;
  };
  const live = await pieces(recorded(file, () => new FakeBackend({ pieceLength: 3 }), { record: true }));
  t.true(live.length > 2);
  t.deepEqual(await pieces(recorded(file, noLive, { record: false })), live);
});

test('recording again gives the same file', async (t) => {
  const file = newFile();
  const record = async () => {
    const backend = recorded(file, () => new Counting(), { record: true });
    await talk.run({ topic: 'a' }, { backend });
    return readFileSync(file, 'utf8');
  };
  t.is(await record(), await record());
});

test('what is not in the recording is told, with the end of the prompt and what to do', async (t) => {
  const file = newFile();
  const ask = fn((s, { q }: { q: string }) => s.user(q).assistant(gen('a')));
  const replayed = () => ask.run({ q: 'other' }, { backend: recorded(file, noLive, { record: false }) });
  await t.throwsAsync(async () => replayed(), {
    message: /made.\d+\.json does not exist; record it with SGLANG_RECORD=1/,
  });
  await ask.run({ q: 'known' }, { backend: recorded(file, () => new FakeBackend(), { record: true }) });
  await t.throwsAsync(async () => replayed(), {
    message: /has no answer to this stream.*other\\nassistant:".*SGLANG_RECORD=1/,
  });
  writeFileSync(file, '{');
  await t.throwsAsync(async () => replayed(), { message: /is no recording/ });
});

test('a call that failed is not recorded', async (t) => {
  const file = newFile();
  const ask = fn((s) => s`x${gen('a')}`);
  let fails = true;
  const reply = () => {
    if (fails) throw new Error('out of ink');
    return 'done';
  };
  const backend = recorded(file, () => new FakeBackend({ replies: [['x', reply]] }), { record: true });
  await t.throwsAsync(async () => ask.run({}, { backend }));
  fails = false;
  await ask.run({}, { backend });
  t.is((await ask.run({}, { backend: recorded(file, noLive, { record: false }) })).vars.a, 'done');
});
