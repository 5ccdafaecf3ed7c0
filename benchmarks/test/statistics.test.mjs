/** Figures of scripted runs, worked out by hand. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { figures, median, medians, percentile, rates } from '../statistics.mjs';
import { run } from './runs.mjs';

test('the median is the middle, or between the two middle ones, whatever the order', () => {
  assert.equal(median([9, 10, 1]), 9);
  assert.equal(median([4, 1, 10, 2]), 3);
  assert.equal(median([]), null);
});

test('a percentile is a value that occurred', () => {
  const upTo100 = Array.from({ length: 100 }, (_, i) => 100 - i);
  assert.deepEqual(
    [0, 0.01, 0.5, 0.99, 1].map((share) => percentile(upTo100, share)),
    [1, 1, 50, 99, 100],
  );
  assert.equal(percentile([7], 0.99), 7);
  assert.equal(percentile([], 0.5), null);
});

test('gaps are within a generation, and first tokens are no gaps', () => {
  const { ttftP50Ms, ttftP99Ms, interTokenP50Ms, interTokenP99Ms, tokensPerSecond } = figures(
    run(
      [
        [10, 12, 15],
        [1000, 1001, 1006],
      ],
      { wallSeconds: 2 },
    ),
  );
  assert.deepEqual([ttftP50Ms, ttftP99Ms], [10, 1000]);
  assert.deepEqual([interTokenP50Ms, interTokenP99Ms], [2, 5]);
  assert.equal(tokensPerSecond, 3);
});

test('what some runs do not have is the median of those that do, else null', () => {
  const runs = [run([[1]], { othersCpu: null }), run([[3]], { othersCpu: 0.5 }), run([[8]], { othersCpu: null })];
  const { othersCpu, ttftP50Ms, interTokenP50Ms } = medians(runs.map(figures));
  assert.deepEqual({ othersCpu, ttftP50Ms, interTokenP50Ms }, { othersCpu: 0.5, ttftP50Ms: 3, interTokenP50Ms: null });
});

test('prefill counts prompt tokens until the first token', () => {
  assert.equal(rates.prefill(run([[10], [30]], { promptTokens: 8 })), 400);
});

test('decoding counts what all do together: after the last first token, up to the first last one', () => {
  const { served } = run([
    [10, 20, 30, 40],
    [25, 30, 35],
  ]);
  assert.equal(rates.decode({ served }), 300);
  served[1].startMs = 5;
  assert.equal(rates.decode({ served }), 300);
  served[1].startMs = 50;
  assert.throws(() => rates.decode({ served }), /no time at which all streams decoded/);
});

test('decoding after a long prefix is a share of that after a short one', () => {
  const of = (after, times) => run([times], { request: { after } }).served;
  const served = [...of('short', [0, 10, 20]), ...of('long', [0, 20, 40])];
  assert.equal(figures({ ...run([]), served }).longPrefixShare, 0.5);
  assert.equal(figures(run([[1, 2]])).longPrefixShare, null);
});

test('a hit rate is of all prompt tokens, and unknown if a peer does not tell', () => {
  assert.equal(figures(run([[1], [1]], { promptTokens: 10, cachedTokens: 4 })).hitRate, 0.4);
  assert.equal(figures(run([[1]], { cachedTokens: null })).hitRate, null);
});

const schema = {
  properties: {
    name: { type: 'string', maxLength: 3 },
    age: { type: 'integer', minimum: 0, maximum: 9 },
    ok: { enum: ['y'] },
  },
};

for (const [text, valid] of [
  ['{"name":"Ada","age":9,"ok":"y"}', 1],
  ['{"name":"Adam","age":9,"ok":"y"}', 0],
  ['{"name":"Ada","age":10,"ok":"y"}', 0],
  ['{"name":"Ada","age":1,"ok":"n"}', 0],
  ['{"name":"Ada","age":1}', 0],
  ['{"name":"Ada","age":1,"ok":"y","more":1}', 0],
  ['{"name":"Ada","age":', 0],
]) {
  test(`${text} is ${valid ? '' : 'not '}what the schema allows`, () => {
    const constrained = run([[0, 12]], { request: { jsonSchema: schema } }).served.map((each) => ({ ...each, text }));
    const { served, ...rest } = run([[0, 10]]);
    const { validShare, constraintOverhead } = figures({ ...rest, served: [...served, ...constrained] });
    assert.equal(validShare, valid);
    assert.equal(Math.round(constraintOverhead * 100), 20);
  });
}
