/** Figures of scripted runs, worked out by hand. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { figures, median, medians, percentile } from '../statistics.mjs';
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
  const { ttftMeanMs, ttftP99Ms, interTokenP50Ms, interTokenP99Ms, outTokensPerSecond } = figures(
    run(
      [
        [10, 12, 15],
        [1000, 1001, 1006],
      ],
      { wallSeconds: 2 },
    ),
  );
  assert.deepEqual([ttftMeanMs, ttftP99Ms], [505, 1000]);
  assert.deepEqual([interTokenP50Ms, interTokenP99Ms], [2, 5]);
  assert.equal(outTokensPerSecond, 3);
});

test('what some runs do not have is the median of those that do, else null', () => {
  const runs = [run([[1]], { othersCpu: null }), run([[3]], { othersCpu: 0.5 }), run([[8]], { othersCpu: null })];
  const { othersCpu, ttftMeanMs, interTokenP50Ms } = medians(runs.map(figures));
  assert.deepEqual(
    { othersCpu, ttftMeanMs, interTokenP50Ms },
    { othersCpu: 0.5, ttftMeanMs: 3, interTokenP50Ms: null },
  );
});
