/** Ratios, agreement and prompt counts over scripted runs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { comparison, sameTokens } from '../comparison.mjs';
import { run } from './runs.mjs';

const lasting = (...walls) => walls.map((wallSeconds) => wallSeconds && run([[1, 2]], { wallSeconds }));

test('a machine that slows down round by round does not change the ratio', () => {
  const runs = { ours: lasting(1, 10, 100), rival: lasting(3, 30, 300) };
  assert.equal(Math.round(comparison(runs, 'ours').peers.rival.against.speed * 1e6), 3e6);
});

test('a run that failed takes only its round out', () => {
  const { peers } = comparison({ ours: lasting(1, null, 1), rival: lasting(2, 50, null) }, 'ours');
  assert.equal(peers.rival.against.speed, 2);
  assert.equal(peers.rival.median.wallSeconds, 26);
  assert.deepEqual(peers.ours.runs.map(Boolean), [true, false, true]);
});

test('without a round that both ended there is no ratio', () => {
  const { peers, promptTokens } = comparison({ ours: [null], rival: [null] }, 'ours');
  assert.deepEqual(peers.rival, { median: {}, runs: [null], against: { speed: null, sameTokens: null } });
  assert.equal(promptTokens, null);
});

test('agreement ends with the first other token', () => {
  const of = (...lists) => lists.map((outputIds) => ({ outputIds }));
  assert.equal(sameTokens(of([1, 2, 3, 4]), of([1, 2, 3, 4])), 1);
  assert.equal(sameTokens(of([1, 2, 3, 4], [5, 6]), of([1, 9, 3, 4], [5, 6])), 0.625);
});

test('a program with a benchmark of its own has a speed and nothing else', () => {
  const rival = { version: '1', device: 'cpu', tokensPerSecond: 0.5, othersCpu: 0, served: [] };
  const { peers, promptTokens } = comparison({ ours: lasting(1), rival: [rival] }, 'ours');
  assert.deepEqual(peers.rival.against, { speed: 4, sameTokens: null });
  assert.deepEqual(promptTokens, { min: 5, max: 5, total: 5 });
});
