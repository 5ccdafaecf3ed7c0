import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { Engine } from '../../src/engine/engine.ts';
import type { GenerateRequest } from '../../src/engine/types.ts';
import { outputOf } from '../node-process.ts';
import { defaultModel, tinyEngine, tinyModel } from './fixtures.ts';

const prompt = 'The license for this software';
const greedy = { temperature: 0, maxNewTokens: 12, ignoreEos: true };
let engine: Engine;

test.before(async () => {
  engine = await tinyEngine();
});
test.after.always(() => engine.close());

/** Resolves once the engine has nothing to do and holds no private pages. */
async function atRest(): Promise<void> {
  for (let i = 0; i < 200; i++) {
    const { running, waiting, leasedTokens } = engine.stats();
    if (running + waiting + leasedTokens === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`still busy: ${JSON.stringify(engine.stats())}`);
}

test('streamed pieces joined are the awaited result', async (t) => {
  const generation = engine.generate({ prompt, samplingParams: greedy });
  let text = '';
  const ids: number[] = [];
  for await (const chunk of generation) {
    text += chunk.text;
    ids.push(...chunk.outputIds);
  }
  const result = await generation;
  t.is(text, result.text);
  t.deepEqual(ids, result.outputIds);
  t.is(result.outputIds.length, 12);
  t.deepEqual(result.meta.finishReason, { type: 'length', length: 12 });
});

test('text, token ids and messages are prompts', async (t) => {
  const fromText = await engine.generate({ prompt, samplingParams: greedy });
  const fromIds = await engine.generate({ inputIds: engine.tokenize(prompt), samplingParams: greedy });
  t.deepEqual(fromIds.outputIds, fromText.outputIds);
  const messages = [{ role: 'user', content: 'Hello' }];
  const rendered = engine.applyChatTemplate(messages);
  t.is(rendered, '<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n');
  const chat = await engine.generate({ messages, samplingParams: greedy });
  t.is(chat.meta.promptTokens, engine.tokenize(rendered).length);
});

test('a seed decides the text, whatever else runs', async (t) => {
  const request: GenerateRequest = { prompt, samplingParams: { ...greedy, temperature: 1, seed: 42 } };
  const alone = await engine.generate(request);
  const crowd = await Promise.all([
    engine.generate(request),
    ...Array.from({ length: 15 }, (_, seed) =>
      engine.generate({ prompt: `${prompt} ${seed}`, samplingParams: { ...greedy, temperature: 1, seed } }),
    ),
  ]);
  t.is(crowd[0]!.text, alone.text);
  t.true(new Set(crowd.map(({ text }) => text)).size > 8, 'other seeds give other texts');
});

test('n samples differ and share the prompt', async (t) => {
  const results = await engine.generate({ prompt, samplingParams: { ...greedy, temperature: 1, seed: 1, n: 4 } }).all();
  t.is(results.length, 4);
  t.is(new Set(results.map(({ text }) => text)).size, 4);
});

test('log-probabilities of prompt and output', async (t) => {
  const { meta } = await engine.generate({
    prompt,
    samplingParams: greedy,
    ...{ returnLogprob: true, logprobStartLen: 0, topLogprobsNum: 2, tokenIdsLogprob: [5, 6] },
  });
  const { inputLogprobs, outputLogprobs } = meta;
  t.is(inputLogprobs!.tokens.length, meta.promptTokens);
  t.is(inputLogprobs!.tokens[0]!.logprob, null);
  t.true(inputLogprobs!.tokens.slice(1).every(({ logprob }) => logprob! < 0));
  t.is(outputLogprobs!.tokens.length, 12);
  outputLogprobs!.tokens.forEach(({ tokenId, logprob }, i) => {
    t.deepEqual(outputLogprobs!.top[i]![0], { tokenId, logprob }, 'greedy takes the most likely token');
    t.deepEqual(
      outputLogprobs!.ofTokens[i]!.map((entry) => entry.tokenId),
      [5, 6],
    );
  });
});

test('a stop string ends the text before it and never leaks', async (t) => {
  const { text } = await engine.generate({ prompt, samplingParams: { ...greedy, maxNewTokens: 40 } });
  const stop = text.slice(9, 12);
  const end = text.indexOf(stop);
  const pieces: string[] = [];
  const generation = engine.generate({
    prompt,
    samplingParams: { ...greedy, maxNewTokens: 40, stop: [stop, '\u0000never'] },
  });
  for await (const chunk of generation) pieces.push(chunk.text);
  t.is(pieces.join(''), text.slice(0, end));
  t.deepEqual((await generation).meta.finishReason, { type: 'stop', matched: stop });
  const untrimmed = await engine.generate({
    prompt,
    samplingParams: { ...greedy, maxNewTokens: 40, stop, noStopTrim: true },
  });
  t.is(untrimmed.text, text.slice(0, end + stop.length));
});

test('a bias and a ban on end tokens are honoured', async (t) => {
  const biased = await engine.generate({ prompt, samplingParams: { ...greedy, logitBias: { 77: 100 } } });
  t.true(biased.outputIds.every((id) => id === 77));
  const eos = engine.model.eosTokenIds[0]!;
  const pushed = { temperature: 0, maxNewTokens: 9, minNewTokens: 5, logitBias: { [eos]: 100 } };
  const { outputIds } = await engine.generate({ prompt, samplingParams: pushed });
  t.is(outputIds.length, 6);
  t.is(outputIds.at(-1), eos);
});

test.serial('a second request takes its prompt from the cache, until it is flushed', async (t) => {
  const long = Array.from({ length: 40 }, (_, i) => 10 + i);
  const ask = async () => (await engine.generate({ inputIds: long, samplingParams: greedy })).meta.cachedTokens;
  await ask();
  t.is(await ask(), 39);
  await atRest();
  t.true((await engine.flushCache()) >= 39);
  t.is(await ask(), 0);
});

test.serial('salts and keys part the cache', async (t) => {
  const inputIds = Array.from({ length: 40 }, (_, i) => 60 + i);
  const ask = async (names: Pick<GenerateRequest, 'cacheSalt' | 'extraKey'>) =>
    (await engine.generate({ inputIds, samplingParams: greedy, ...names })).meta.cachedTokens;
  const different = [
    {},
    { cacheSalt: 'a' },
    { cacheSalt: 'b' },
    { extraKey: 'a' },
    { cacheSalt: 'a', extraKey: 'b' },
    { cacheSalt: 'ab' },
  ];
  for (const names of different) t.is(await ask(names), 0, JSON.stringify(names));
  for (const names of different) t.is(await ask(names), 39, JSON.stringify(names));
});

test.serial('the tree of prefixes: tokens, hits, leases, and text when asked for', async (t) => {
  await atRest();
  await engine.flushCache();
  t.deepEqual(await engine.radix(), []);
  const samplingParams = { ...greedy, maxNewTokens: 1 };
  await engine.generate({ prompt: `${prompt} is`, samplingParams });
  await engine.generate({ prompt: `${prompt} was`, samplingParams });
  const nodes = await engine.radix({ text: true });
  t.is(nodes[0]!.parent, null);
  t.deepEqual([nodes[0]!.tokens, nodes[0]!.text, nodes[0]!.namespace], [0, '', '0']);
  t.deepEqual([nodes[1]!.text, nodes[1]!.parent, nodes[1]!.hits], [prompt, 0, 1]);
  const branches = nodes.slice(2).map(({ text, parent }) => [text, parent]);
  t.deepEqual(branches, [
    [' was', 1],
    [' is', 1],
  ]);
  t.true(nodes.every(({ leases }) => leases === 0));
  t.is(16 * nodes.reduce((sum, { pages }) => sum + pages, 0), engine.stats().cachedTokens);
  t.true((await engine.radix()).every((node) => node.text === undefined));
});

test('values of a wrong type are told by the name of their option', async (t) => {
  const rows: [request: object, message: string][] = [
    [{ samplingParams: { maxNewTokens: -1 } }, 'maxNewTokens: expected a whole number, 0 or more, got -1'],
    [{ samplingParams: { maxNewTokens: 1.5 } }, 'maxNewTokens: expected a whole number, 0 or more, got 1.5'],
    [{ samplingParams: { maxNewTokens: 2 ** 40 } }, `maxNewTokens: expected a whole number, 0 or more, got ${2 ** 40}`],
    [{ samplingParams: { maxNewTokens: '5' } }, 'maxNewTokens: expected a value of type number'],
    [{ samplingParams: { minNewTokens: -5 } }, 'minNewTokens: expected a whole number, 0 or more, got -5'],
    [{ samplingParams: { temperature: 'hot' } }, 'temperature: expected a value of type number'],
    [{ samplingParams: { stop: 5 } }, 'stop: expected a value of type string'],
    [{ prompt: 5 }, 'text: expected a value of type string'],
    [{ returnLogprob: 'yes' }, 'returnLogprob: expected a value of type boolean'],
  ];
  for (const [wrong, message] of rows) {
    const request = { prompt, ...wrong } as GenerateRequest;
    await t.throwsAsync(async () => engine.generate(request), { code: 'bad_request', message });
  }
});

test('a request is told how long it waited; what does not fit the queue is refused', async (t) => {
  const small = await tinyEngine({ maxRunningRequests: 1, maxQueuedRequests: 1, schedulePolicy: 'dfs-weight' });
  const asks = [200, 3, 3].map((maxNewTokens) =>
    small.generate({ prompt, samplingParams: { ...greedy, maxNewTokens } }),
  );
  const [first, second] = await Promise.all([asks[0], asks[1]]);
  await t.throwsAsync(asks[2]!.all(), { code: 'overloaded', message: /the queue is full/ });
  t.true(first!.meta.queueTime! < second!.meta.queueTime!);
  t.true(second!.meta.queueTime! <= second!.meta.e2eLatency);
  await small.close();
});

test('pieces that are read late have the log-probabilities of their own tokens', async (t) => {
  const generation = engine.generate({ prompt, samplingParams: greedy, returnLogprob: true });
  const { outputIds } = await generation;
  for await (const chunk of generation)
    t.deepEqual(chunk.outputLogprobs?.tokens.map(({ tokenId }) => tokenId) ?? [], chunk.outputIds);
  t.is(outputIds.length, 12);
});

test('two readers of a generation read the same', async (t) => {
  const generation = engine.generate({ prompt, samplingParams: { ...greedy, maxNewTokens: 8 } });
  const read = async () => {
    let text = '';
    for await (const chunk of generation) text += chunk.text;
    return text;
  };
  const [one, other, { text }] = await Promise.all([read(), read(), generation]);
  t.deepEqual([one, other], [text, text]);
});

test('many generations may heed one signal', async (t) => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => void warnings.push(warning);
  process.on('warning', onWarning);
  const { signal } = new AbortController();
  await Promise.all(Array.from({ length: 20 }, () => engine.generate({ prompt, samplingParams: greedy, signal })));
  await new Promise((resolve) => setTimeout(resolve, 10));
  process.off('warning', onWarning);
  t.deepEqual(warnings, []);
});

test('samples beside one that is refused end with it', async (t) => {
  const small = await tinyEngine({ maxRunningRequests: 1, maxQueuedRequests: 2 });
  const samplingParams = { ...greedy, n: 8, maxNewTokens: 400, ignoreEos: true };
  await t.throwsAsync(small.generate({ prompt, samplingParams }).all(), { code: 'overloaded' });
  await small.generate({ prompt, samplingParams: { ...greedy, maxNewTokens: 1 } });
  t.true(small.stats().generationTokensTotal < 400);
  await small.close();
});

test('a larger priority goes first', async (t) => {
  const small = await tinyEngine({ maxRunningRequests: 1 });
  const ended: number[] = [];
  const ask = (priority: number, maxNewTokens: number) =>
    small.generate({ prompt, priority, samplingParams: { ...greedy, maxNewTokens } }).then(() => ended.push(priority));
  await Promise.all([ask(9, 100), ask(0, 2), ask(-1, 2), ask(1, 2)]);
  t.deepEqual(ended, [9, 1, 0, -1]);
  await small.close();
});

test.serial('a signal ends a generation, and its memory comes back', async (t) => {
  const controller = new AbortController();
  const generation = engine.generate({
    prompt,
    samplingParams: { ...greedy, maxNewTokens: 1500 },
    signal: controller.signal,
  });
  for await (const _ of generation) {
    controller.abort();
    break;
  }
  await t.throwsAsync(generation.all(), { any: true, name: 'AbortError' });
  await t.throwsAsync(engine.generate({ prompt, signal: AbortSignal.abort() }).all(), {
    any: true,
    name: 'AbortError',
  });
  await atRest();
  t.pass();
});

test.serial('leaving the loop early or calling abort ends a generation with what it had', async (t) => {
  const generation = engine.generate({ prompt, samplingParams: { ...greedy, maxNewTokens: 1500 } });
  for await (const chunk of generation) if (chunk.outputIds.length > 0) break;
  const { meta, outputIds } = await generation;
  t.is(meta.finishReason.type, 'abort');
  t.true(outputIds.length >= 1 && outputIds.length < 1500);
  await atRest();
});

test('an unlimited output may fill the context', async (t) => {
  const { meta } = await engine.generate({ prompt, samplingParams: { ...greedy, maxNewTokens: Infinity } });
  t.is(meta.promptTokens + meta.completionTokens, engine.model.contextLength);
});

const badRequests: [string, GenerateRequest, string, RegExp][] = [
  ['no prompt', {}, 'bad_request', /exactly one of prompt, messages and inputIds/],
  ['an empty prompt', { inputIds: [] }, 'bad_request', /prompt is empty/],
  ['a token outside the vocabulary', { inputIds: [4, 99999] }, 'bad_request', /99999 is not in the vocabulary of 512/],
  ['a negative temperature', { prompt, samplingParams: { temperature: -1 } }, 'bad_request', /temperature.*≥ 0.*-1/],
  ['top_p of zero', { prompt, samplingParams: { topP: 0 } }, 'bad_request', /top_p.*\(0, 1\]/],
  ['n of zero', { prompt, samplingParams: { n: 0 } }, 'bad_request', /n: expected an integer/],
  ['a prompt that is too long', { inputIds: Array(5000).fill(7) }, 'context_length_exceeded', /5000 tokens.*2048/],
  [
    'too many new tokens',
    { prompt, samplingParams: { maxNewTokens: 4000 } },
    'context_length_exceeded',
    /ask for at most/,
  ],
  ['too many alternatives', { prompt, returnLogprob: true, topLogprobsNum: 1000 }, 'bad_request', /at most 128/],
];
for (const [title, request, code, message] of badRequests) {
  test(`${title} is refused with its reason, and the engine goes on`, async (t) => {
    await t.throwsAsync(engine.generate(request).all(), { name: 'SglangError', code, message });
    t.is((await engine.generate({ prompt, samplingParams: greedy })).outputIds.length, 12);
  });
}

test('two engines work side by side; a closed one refuses', async (t) => {
  const other = await tinyEngine({ threads: 1 });
  const [a, b] = await Promise.all([engine, other].map((e) => e.generate({ prompt, samplingParams: greedy })));
  t.is(a!.text, b!.text);
  const open = other.generate({ prompt, samplingParams: { ...greedy, maxNewTokens: 2000 } });
  await Promise.all([other.close(), t.throwsAsync(open.all(), { code: 'engine_closed' })]);
  await other.close();
  await t.throwsAsync(other.generate({ prompt }).all(), { code: 'engine_closed' });
});

test('two ranks share a model; a number of ranks that does not fit is refused', async (t) => {
  const shared = await tinyEngine({ tp: 2, threads: 2, dtype: 'float32' });
  const whole = await tinyEngine({ dtype: 'float32' });
  t.regex(shared.model.device, /^2 ranks of cpu \(\w+, 1 thread\)$/);
  t.deepEqual([shared.model.tp, whole.model.tp], [2, 1]);
  const [a, b] = await Promise.all([shared, whole].map((e) => e.generate({ prompt, samplingParams: greedy })));
  t.is(a!.text, b!.text);
  await Promise.all([shared.close(), whole.close()]);
  await t.throwsAsync(tinyEngine({ tp: 64 }), { code: 'load_failed', message: /^tp 64: .*; tp can be 1, 2, / });
});

test('a misspelt option is told, with the one that was meant', async (t) => {
  const meant = (where: string, wrong: string, right: string) => ({
    code: 'bad_request',
    message: `${where}: there is no option ${wrong}; did you mean ${right}?`,
  });
  const wrong = { prompt, samplingParams: { max_new_tokens: 1 } } as GenerateRequest;
  await t.throwsAsync(async () => engine.generate(wrong), meant('samplingParams', 'max_new_tokens', 'maxNewTokens'));
  const other = { prompt, returnLogprobs: true } as GenerateRequest;
  await t.throwsAsync(async () => engine.generate(other), meant('generate', 'returnLogprobs', 'returnLogprob'));
  const embedding = engine.embed(['a'], { normalise: false } as never);
  await t.throwsAsync(embedding, meant('embed', 'normalise', 'normalize'));
  const scores = engine.score({ query: 'a', items: ['b'], labelTokenIds: [1], applySoftMax: true } as never);
  await t.throwsAsync(scores, meant('score', 'applySoftMax', 'applySoftmax'));
  const created = tinyEngine({ contextLenght: 64 } as never);
  await t.throwsAsync(created, meant('Engine.create', 'contextLenght', 'contextLength'));
  await t.throwsAsync(tinyEngine({ nCtx: 64 } as never), { message: /no option nCtx; there are: modelPath, / });
});

test('an option of loading that is of a wrong type is told by its name', async (t) => {
  const message = 'contextLength: expected a value of type number';
  await t.throwsAsync(tinyEngine({ contextLength: 'long' as never }), { code: 'bad_request', message });
});

test('loading tells what is wrong with the files', async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'sglang-load-'));
  const truncated = path.join(folder, 'model.gguf');
  writeFileSync(truncated, 'GGUF\u0003');
  const unknown = path.join(folder, 'text.txt');
  writeFileSync(unknown, 'hello');
  await t.throwsAsync(Engine.create({ modelPath: truncated }), { code: 'load_failed', message: /model\.gguf/ });
  await t.throwsAsync(Engine.create({ modelPath: unknown }), { message: /expected a GGUF file, a folder/ });
  await t.throwsAsync(tinyEngine({ contextLength: 1e6 }), {
    message: /context length 1000000: the model was made for 1 to 2048/,
  });
  await t.throwsAsync(tinyEngine({ dtype: 'int3' as 'auto' }), {
    message: /dtype "int3": expected one of auto, float32/,
  });
});

test('loading reports progress', async (t) => {
  const phases: string[] = [];
  const loaded = await Engine.create({ modelPath: tinyModel, onProgress: ({ phase }) => phases.push(phase) });
  await loaded.close();
  t.true(phases.includes('load'));
});

test('a script that finishes its work exits by itself', async (t) => {
  const source = `import { Engine } from ${JSON.stringify(fileURLToPath(new URL('../../src/engine/engine.ts', import.meta.url)))};
    const engine = await Engine.create({ modelPath: ${JSON.stringify(tinyModel)} });
    const { outputIds } = await engine.generate({ prompt: 'x', samplingParams: { maxNewTokens: 3, ignoreEos: true } });
    console.log(outputIds.length);`;
  const script = path.join(mkdtempSync(path.join(tmpdir(), 'sglang-exit-')), 'script.mts');
  writeFileSync(script, source);
  const tsx = fileURLToPath(import.meta.resolve('tsx'));
  const { stdout } = await outputOf(t, ['--import', tsx, script]);
  t.is(stdout, '3\n');
});

test('the default model answers', async (t) => {
  const model = await Engine.create({ modelPath: defaultModel });
  const messages = [{ role: 'user', content: 'What is the capital of the United States?' }];
  const { text, meta } = await model.generate({ messages, samplingParams: { temperature: 0, maxNewTokens: 32 } });
  t.regex(text, /^The capital of the United States is /);
  t.is(meta.promptTokens, 39);
  await model.close();
});
