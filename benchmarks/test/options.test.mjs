/** What the command line means and what it refuses. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readOptions } from '../options.mjs';

test('without arguments it is W4 against node-llama-cpp, in full', () => {
  const { workloads, peers, rounds, streams, size, trial } = readOptions([]);
  const expected = { workloads: ['W4'], peers: ['sglang', 'node-llama-cpp'], rounds: 3, streams: undefined, size: {} };
  assert.deepEqual({ workloads, peers, rounds, streams, size, trial }, { ...expected, trial: false });
});

test('whatever makes less work makes a trial', () => {
  const trial = (...args) => readOptions(args).trial;
  for (const less of ['--quick', '--rounds=2', '--streams=8', '--tokens=8', '--requests=2'])
    assert.ok(trial(less), less);
  for (const whole of ['W4', '--rounds=5', '--threads=1']) assert.ok(!trial(whole), whole);
  assert.deepEqual(readOptions(['--streams', '1,8', '--tokens', '8']).streams, [1, 8]);
});

test('what is not understood is refused by name', () => {
  const refusals = [
    [['W9'], 'no workload is called "W9"; there are W4'],
    [['--peers', 'node-llama-cpp,sglang'], 'no peer is called "sglang"; there are node-llama-cpp'],
    [['--rounds', '0'], '--rounds: expected a positive integer, got "0"'],
    [['--streams', '1,x'], '--streams: expected a positive integer, got "x"'],
  ];
  for (const [args, message] of refusals) assert.throws(() => readOptions(args), { message });
  assert.throws(() => readOptions(['--fast']), /Unknown option '--fast'/);
});
