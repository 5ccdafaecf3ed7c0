/** Embeddings and scores of a tiny checkpoint. */
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { Engine } from '../../src/engine/engine.ts';
import { tinyEngine, tinyModel } from './fixtures.ts';

const texts = ['The license for this software', 'The license for that', 'Once upon a time'];
let engine: Engine;

test.before(async () => {
  engine = await tinyEngine();
});
test.after.always(() => engine.close());

test.serial('many at once are as alone, also beside a generation and from the cache', async (t) => {
  for (const pooling of ['last', 'mean'] as const) {
    const alone: Float32Array[] = [];
    for (const text of texts) {
      await engine.flushCache();
      alone.push((await engine.embed([text], { pooling }))[0]!.vector);
    }
    const running = engine.generate({ prompt: texts[0], samplingParams: { maxNewTokens: 20, ignoreEos: true } });
    const together = await engine.embed(texts, { pooling });
    t.deepEqual(
      together.map(({ vector }) => vector),
      alone,
    );
    t.is((await running).outputIds.length, 20);
    t.true(alone.every((vector) => Math.abs(Math.hypot(...vector) - 1) < 1e-6));
  }
});

test.serial('token ids are taken as they are; the cache serves last, not mean', async (t) => {
  await engine.flushCache();
  const ids = engine.tokenize(texts[0]!);
  const [fromText] = await engine.embed([texts[0]!]);
  const [fromIds] = await engine.embed([ids]);
  t.deepEqual(fromIds!.vector, fromText!.vector);
  t.deepEqual([fromText!.promptTokens, fromText!.cachedTokens], [ids.length, 0]);
  t.is(fromIds!.cachedTokens, ids.length - 1);
  t.is((await engine.embed([ids], { pooling: 'mean' }))[0]!.cachedTokens, 0);
});

test.serial('the mean is that of the last states of all prefixes', async (t) => {
  const ids = engine.tokenize(texts[0]!);
  const raw = { normalize: false };
  const last = await engine.embed(
    ids.map((_, i) => ids.slice(0, i + 1)),
    raw,
  );
  const [mean] = await engine.embed([ids], { ...raw, pooling: 'mean' });
  const expected = mean!.vector.map((_, i) => last.reduce((sum, { vector }) => sum + vector[i]!, 0) / ids.length);
  t.deepEqual(mean!.vector, expected);
});

test.serial('dimensions, unit length and what is refused', async (t) => {
  const [whole] = await engine.embed([texts[0]!], { normalize: false });
  const [short] = await engine.embed([texts[0]!], { dimensions: 8 });
  const length = Math.hypot(...whole!.vector.subarray(0, 8));
  t.true(short!.vector.every((value, i) => Math.abs(value - whole!.vector[i]! / length) < 1e-6));
  await t.throwsAsync(engine.embed(['a'], { dimensions: 100_000 }), { message: /expected 1 to \d+, got 100000$/ });
  await t.throwsAsync(engine.embed(['a'], { pooling: 'max' as 'mean' }), { message: /expected "last" or "mean"/ });
  await t.throwsAsync(engine.embed([texts[0]!, []]), { message: /empty/ });
  const generation = engine.generate({ prompt: 'a', pooling: 'last', samplingParams: { maxNewTokens: 3 } });
  await t.throwsAsync(generation.all(), { message: /an embedding has no new tokens/ });
});

test.serial('a score is the probability that the prompt log-probabilities give the label', async (t) => {
  // Longer than a page: for less nobody waits until another has computed it.
  const query = engine.tokenize(texts[0]!.repeat(4));
  const items = [[5, 6], [7], [5, 8]];
  const labelTokenIds = [11, 42];
  await engine.flushCache();
  const before = engine.stats().computedTokensTotal;
  const { scores, promptTokens } = await engine.score({ query, items, labelTokenIds });
  const computed = engine.stats().computedTokensTotal - before;
  t.true(computed <= query.length + 5, `${computed} tokens were computed: the query once, five tokens of items`);
  t.is(promptTokens, 3 * query.length + 5);
  const byHand = async (item: number[], label: number) => {
    const inputIds = [...query, ...item, label];
    const { meta } = await engine.generate({
      ...{ inputIds, returnLogprob: true, logprobStartLen: inputIds.length - 1 },
      samplingParams: { maxNewTokens: 0 },
    });
    return Math.exp(meta.inputLogprobs!.tokens[0]!.logprob!);
  };
  for (const [i, item] of items.entries()) {
    t.deepEqual(scores[i], await Promise.all(labelTokenIds.map((label) => byHand(item, label))));
  }
});

test.serial('shares among labels, and items before the query', async (t) => {
  const asked = { query: ' is a good answer:', items: ['A dog', 'A house'], labelTokenIds: [11, 42] };
  const { scores } = await engine.score({ ...asked, itemFirst: true });
  const swapped = await engine.score({ ...asked, query: 'A house', items: [' is a good answer:'] });
  t.deepEqual(swapped.scores[0], scores[1]);
  const shares = await engine.score({ ...asked, itemFirst: true, applySoftmax: true });
  for (const [i, [a, b]] of scores.entries()) {
    const share = shares.scores[i]!;
    t.true(Math.abs(share[0]! - a! / (a! + b!)) < 1e-9 && Math.abs(share[0]! + share[1]! - 1) < 1e-9);
  }
});

test.serial('a model that embeds only pools as its files say, and refuses to generate', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'sglang-test-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  await cp(tinyModel, folder, { recursive: true });
  const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as object;
  await writeFile(join(folder, 'config.json'), JSON.stringify({ ...config, architectures: ['LlamaModel'] }));
  await mkdir(join(folder, '1_Pooling'));
  await writeFile(join(folder, '1_Pooling/config.json'), '{"pooling_mode_mean_tokens": true}');
  await writeFile(join(folder, 'modules.json'), '[{"type": "sentence_transformers.models.Pooling"}]');
  const embedder = await Engine.create({ modelPath: folder });
  t.teardown(() => embedder.close());
  const { generates, pooling, normalize } = embedder.model;
  t.deepEqual({ generates, pooling, normalize }, { generates: false, pooling: 'mean', normalize: false });
  t.deepEqual(await embedder.embed(texts), await engine.embed(texts, { pooling: 'mean', normalize: false }));
  const last = { pooling: 'last', normalize: true } as const;
  t.deepEqual((await embedder.embed(texts, last))[1]!.vector, (await engine.embed(texts, last))[1]!.vector);
  await t.throwsAsync(embedder.generate({ prompt: 'a' }).all(), {
    code: 'bad_request',
    message: /the model has no head, so it cannot generate or score: ask for embeddings/,
  });
});
