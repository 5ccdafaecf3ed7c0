/** Embeddings and scores over HTTP: OpenAI's own client, and the exact JSON. */
import test from 'ava';
import OpenAI from 'openai';
import { logprobAt } from './fake-engine.ts';
import { startServer } from './harness.ts';

/** Scaled to length 1, in float32. */
function unit(...values: number[]): number[] {
  const length = Math.hypot(...values);
  return values.map((value) => Math.fround(value / length));
}

test('embeddings through the official client: text, list, tokens, lists of tokens', async (t) => {
  const { url, engine } = await startServer(t);
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 });
  const ask = async (input: OpenAI.EmbeddingCreateParams['input'], more = {}) =>
    client.embeddings.create({ model: 'any', input, ...more });
  const answer = await ask('ab');
  t.deepEqual({ ...answer, data: undefined }, {
    object: 'list',
    data: undefined,
    model: 'fake/model',
    usage: { prompt_tokens: 2, total_tokens: 2, prompt_tokens_details: { cached_tokens: 2 } },
  } as unknown as typeof answer);
  t.deepEqual(answer.data, [{ object: 'embedding', index: 0, embedding: unit(97, 98, 12) }]);
  const floats = await ask(['ab', 'c'], { encoding_format: 'float' });
  t.deepEqual(
    floats.data.map(({ index, embedding }) => [index, embedding]),
    [
      [0, unit(97, 98, 12)],
      [1, unit(99, 99, 12)],
    ],
  );
  t.deepEqual((await ask([5, 6, 7])).data[0]!.embedding, unit(5, 7, 12));
  const lists = await ask([[5], [6, 7]]);
  t.deepEqual(
    lists.data.map(({ embedding }) => embedding),
    [unit(5, 5, 12), unit(6, 7, 12)],
  );
  t.is(lists.usage.total_tokens, 3);
  t.true(engine.requests.every(({ samplingParams }) => samplingParams?.maxNewTokens === 0));
});

test('dimensions cut before the length is made 1; pooling and normalize are ours', async (t) => {
  const { post } = await startServer(t);
  const ask = async (more: object) => {
    const { json } = await post('/v1/embeddings', { input: [5, 6, 7], ...more });
    return json.data?.[0].embedding ?? json.error;
  };
  t.deepEqual(await ask({ dimensions: 2 }), unit(5, 7));
  t.deepEqual(await ask({ pooling: 'mean', normalize: false }), [5, 3, 12]);
  t.deepEqual(await ask({ dimensions: 4 }), {
    message: "dimensions: the model's embeddings have 3 values; expected 1 to 3, got 4",
    type: 'invalid_request_error',
    param: 'dimensions',
    code: 'bad_request',
  });
  t.is((await ask({ pooling: 'max' })).param, 'pooling');
  t.is((await ask({ input: [] })).message, 'input: the list is empty');
  t.is((await ask({ input: [5, 300] })).param, 'input[1]');
});

test('scores are probabilities of the labels after query and item', async (t) => {
  const { post, engine } = await startServer(t);
  const labels = [65, 66];
  const { json } = await post('/v1/score', { query: 'is ', items: ['good', 'bad'], label_token_ids: labels });
  const at = (position: number) => labels.map((label) => Math.exp(logprobAt(position, label)));
  t.deepEqual(json.scores, [at(7), at(6)]);
  t.is(json.object, 'scoring');
  t.deepEqual(
    engine.requests.map(({ prompt }) => prompt),
    ['is good', 'is bad'],
  );
  const shared = await post('/v1/score', {
    ...{ query: [1, 2], items: [[3]], label_token_ids: labels },
    ...{ apply_softmax: true, item_first: true },
  });
  const [a, b] = at(3);
  const [[first, second]] = shared.json.scores;
  t.deepEqual(engine.requests.at(-1)!.inputIds, [3, 1, 2]);
  t.true(Math.abs(first - a! / (a! + b!)) < 1e-12 && Math.abs(first + second - 1) < 1e-12);
});

test('scores refuse mixed input, no labels and unknown tokens', async (t) => {
  const { post } = await startServer(t);
  const ask = async (more: object) =>
    (await post('/v1/score', { query: 'a', items: ['b'], label_token_ids: [1], ...more })).json.error;
  t.is((await ask({ items: [[5]] })).message, 'items: query and items must be all text or all token ids');
  t.is((await ask({ label_token_ids: [] })).param, 'label_token_ids');
  t.is((await ask({ label_token_ids: [999] })).param, 'label_token_ids[0]');
  t.is((await ask({ query: undefined })).param, 'query');
});
