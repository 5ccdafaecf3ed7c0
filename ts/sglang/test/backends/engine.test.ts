/** An engine as a backend: text, options and choices arrive as the engine wants them. */
import path from 'node:path';
import test from 'ava';
import { engineBackend } from '../../src/backends/engine.ts';
import type {
  EngineLike,
  GenerateChunk,
  GenerateMeta,
  GenerateRequest,
  GenerateResult,
  ModelCard,
} from '../../src/engine/types.ts';
import { fn, gen, image, select, type FinishReason } from '../../src/index.ts';
import { tinyEngine, tinyModel } from '../engine/fixtures.ts';
import { tools } from './letter-model.ts';
import { selectCases } from './select-cases.ts';

const BOS = 1000;
const card = {
  modelPath: 'm/llama-3',
  chatTemplate: null,
  bosToken: '<|begin_of_text|>',
  bosTokenId: BOS,
  eosToken: '<|eot_id|>',
};

/** An engine that answers every prompt with `reply` and scores with `tools`; it keeps its requests. */
function scripted({
  reply = ['an', 'swer'],
  finishReason = { type: 'stop', matched: 7 } as FinishReason,
  addsBos = false,
} = {}) {
  const requests: GenerateRequest[] = [];
  let flushed = 0;
  const ids = (text: string) => [...(addsBos ? [BOS] : []), ...tools.encode(text)];
  const metaOf = (request: GenerateRequest): GenerateMeta => {
    const tokens = request.inputIds ?? ids(request.prompt!);
    const scored = request.returnLogprob && (request.logprobStartLen ?? -1) >= 0;
    const inputLogprobs = scored
      ? { tokens: tools.logprobs(tokens, request.logprobStartLen!), top: [], ofTokens: [] }
      : undefined;
    return {
      id: 'g',
      finishReason,
      promptTokens: tokens.length,
      completionTokens: 2,
      cachedTokens: 1,
      e2eLatency: 0,
      inputLogprobs,
    };
  };
  const generate = (request: GenerateRequest) => {
    requests.push(request);
    const meta = metaOf(request);
    const result: GenerateResult = { text: reply.join(''), outputIds: [], meta };
    return {
      // oxlint-disable-next-line unicorn/no-thenable -- as generations are
      then: (onResult: (result: GenerateResult) => unknown) => Promise.resolve(result).then(onResult),
      async *[Symbol.asyncIterator](): AsyncGenerator<GenerateChunk> {
        for (const text of reply) yield { index: 0, text, outputIds: [] };
        yield { index: 0, text: '', outputIds: [], meta };
      },
    };
  };
  const flushCache = async () => ++flushed;
  const engine = { model: card as ModelCard, generate, tokenize: ids, flushCache } as unknown as EngineLike;
  return { engine, requests, backend: engineBackend(engine), flushes: () => flushed };
}

test('roles become the text of the model’s template, options the engine’s names', async (t) => {
  const { backend, requests } = scripted();
  const program = fn((s) =>
    s.user('hi').assistant(gen('a', { maxTokens: 5, minTokens: 1, stop: 'X', regex: /a+/, seed: 4, topK: 3 })),
  );
  const result = await program.run({}, { backend, temperature: 0 });
  t.is(result.vars.a, 'answer');
  t.like(result.meta('a'), { completionTokens: 2, cachedTokens: 1, finishReason: 'stop' });
  const { prompt, samplingParams, images } = requests[0]!;
  t.is(
    prompt,
    '<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n',
  );
  t.deepEqual(samplingParams, {
    maxNewTokens: 5,
    minNewTokens: 1,
    stop: ['X'],
    regex: 'a+',
    seed: 4,
    topK: 3,
    temperature: 0,
  });
  t.is(images, undefined);
  t.is(result.text(), `${prompt}answer<|eot_id|>`);
});

test('BOS is left to a tokenizer that puts it before every text', async (t) => {
  const { backend, requests } = scripted({ addsBos: true });
  await fn((s) => s.user('hi').assistant(gen('a'))).run({}, { backend });
  t.true(requests[0]!.prompt!.startsWith('<|start_header_id|>user'));
});

test('images go along, in their order', async (t) => {
  const { backend, requests } = scripted();
  const bytes = new Uint8Array([1]);
  await fn((s) => s`${image('a.png')} and ${image(bytes)}: ${gen('a')}`).run({}, { backend });
  t.like(requests[0], { prompt: '<image> and <image>: ', images: ['a.png', bytes] });
});

test('several branches compute the common part once, without generating', async (t) => {
  const { backend, requests } = scripted();
  await fn(async (s) => {
    await s`head`.fork(3).join();
    return s;
  }).run({}, { backend });
  t.deepEqual(
    requests.map(({ prompt, samplingParams }) => [prompt, samplingParams]),
    [['head', { maxNewTokens: 0 }]],
  );
});

test('every request of a standing has its priority and its salt', async (t) => {
  const { engine, requests } = scripted();
  const backend = engineBackend(engine, { priority: 2, cacheSalt: 'tenant' });
  await fn(async (s) => {
    await s`head`.fork(2).join();
    return s`${select('pick', ['a', 'b'])}${gen('more')}`;
  }).run({}, { backend });
  t.true(requests.length >= 5, 'the common part, the prompt, both options, the generation');
  for (const { priority, cacheSalt } of requests) t.deepEqual([priority, cacheSalt], [2, 'tenant']);
});

for (const { title, prompt, choices, method, expected } of selectCases) {
  test(`select ${title}`, async (t) => {
    const { backend, requests } = scripted({ reply: [] });
    const result = await fn((s) => s(prompt, select('x', choices, { method }))).run({}, { backend });
    t.is(result.vars.x, expected);
    t.is(result.meta('x').scores?.length, choices.length);
    t.true(requests.every(({ samplingParams }) => samplingParams?.maxNewTokens === 0));
  });
}

test('an aborted generation is an error with its message', async (t) => {
  const { backend } = scripted({ finishReason: { type: 'abort', message: 'too long' } });
  await t.throwsAsync(async () => fn((s) => s`x${gen('a')}`).run({}, { backend }), {
    message: 'gen("a"): the generation was aborted: too long',
  });
});

test('the signal of the run reaches the engine; flushing does too', async (t) => {
  const { backend, requests, flushes } = scripted();
  const controller = new AbortController();
  await fn((s) => s`x${gen('a')}`).run({}, { backend, signal: controller.signal });
  t.false(requests[0]!.signal!.aborted);
  controller.abort();
  t.true(requests[0]!.signal!.aborted);
  await backend.flushCache!();
  t.is(flushes(), 1);
});

for (const model of ['llama', 'mistral', 'llama3']) {
  test(`the texts of tokens are the text, spaces and all: ${model}`, async (t) => {
    const engine = await tinyEngine({ modelPath: path.join(tinyModel, '..', model) });
    const program = fn((s) => s`The${gen('a', { regex: '( [a-z]{3}){5}', logprobs: 1, seed: 1 })}`);
    const result = await program.run({}, { backend: engine });
    const tokens = result.meta('a').logprobs!;
    t.is(tokens.map(({ text }) => text).join(''), result.vars.a);
    await engine.close();
  });
}
