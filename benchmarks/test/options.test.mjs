/** What the command line means and what it refuses. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readOptions } from '../options.mjs';

test('without arguments it is W4 against its own rivals, in full', () => {
  const { workloads, peers, rounds, streams, quick, trial } = readOptions([]);
  const expected = { workloads: ['W4'], peers: undefined, rounds: 3, streams: undefined, quick: false, trial: false };
  assert.deepEqual({ workloads, peers, rounds, streams, quick, trial }, expected);
});

test('smaller workloads make a trial, in however many rounds', () => {
  const [trial, rounds] = ['trial', 'rounds'].map(
    (name) =>
      (...args) =>
        readOptions(args)[name],
  );
  assert.ok(trial('--quick') && trial('--quick', '--rounds=3'));
  assert.deepEqual([rounds('--quick'), rounds(), rounds('--quick', '--rounds=2')], [1, 3, 2]);
  for (const whole of ['W4', '--rounds=1', '--threads=1', '--peers=', '--streams=8']) assert.ok(!trial(whole), whole);
  assert.deepEqual(readOptions(['--streams', '1,8']).streams, [1, 8]);
});

test('a group stands for its workloads, and each is measured once', () => {
  assert.deepEqual(readOptions(['large', 'W1', 'large-decode']).workloads, ['large-prefill', 'large-decode', 'W1']);
});

test('peers come after ours, with or without a format', () => {
  assert.deepEqual(readOptions(['--peers', 'roof,llama-bench@q8_0']).peers, ['sglang', 'roof', 'llama-bench@q8_0']);
  assert.deepEqual(readOptions(['--peers', '']).peers, ['sglang']);
});

test('what is not understood is refused by name', () => {
  const refusals = [
    [['W0'], /^Error: no workload is called "W0"; there are W1, W2/],
    [['--peers', 'nobody'], /^Error: no peer is called "nobody"; there are /],
    [['--peers', 'llama-bench@q9'], /^Error: no format is called "q9"; there are q4_0/],
    [['--rounds', '0'], /^Error: --rounds: expected a positive integer, got "0"/],
    [['--streams', '1,x'], /^Error: --streams: expected a positive integer, got "x"/],
    [['--fast'], /Unknown option '--fast'/],
  ];
  for (const [args, message] of refusals) assert.throws(() => readOptions(args), message);
});
