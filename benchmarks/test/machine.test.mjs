/** Readings of /proc as text. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cpuFlags, machineSlug, ownTicks, peakRssMiB, shareOfOthers } from '../machine.mjs';

test('flags are the telling ones of the first CPU', () => {
  const x86 = 'processor\t: 0\nflags\t\t: fpu sse2 avx2 avx512_vnni fma\n\nprocessor\t: 1\nflags\t\t: avx\n';
  assert.deepEqual(cpuFlags(x86), ['avx2', 'avx512_vnni', 'fma']);
  assert.deepEqual(cpuFlags('Features\t: fp asimd i8mm bf16\n'), ['asimd', 'bf16', 'i8mm']);
  assert.deepEqual(cpuFlags(''), []);
});

test('a slug names the CPU and its cores', () => {
  const slugs = [
    ['Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz', 4, 'intel-xeon-platinum-8481c-4-cores'],
    ['AMD EPYC 9B14 96-Core Processor', 2, 'amd-epyc-9b14-2-cores'],
    ['Apple M2', 8, 'apple-m2-8-cores'],
  ];
  for (const [cpu, cores, slug] of slugs) assert.equal(machineSlug({ cpu, cores }), slug);
});

/** A reading: ticks as in the columns of /proc/stat, and the CPU seconds of this process. */
function reading(ticks, ownSeconds) {
  return { stat: `cpu  ${ticks.join(' ')}\ncpu0 1 2 3\n`, own: 100 * ownSeconds };
}

test('others are what neither idled, waited for a disk, nor was ours; what was stolen is theirs', () => {
  const before = reading([100, 0, 50, 1000, 10, 0, 0, 0, 70, 0], 1);
  const share = (ticks, ownSeconds) => shareOfOthers(before, reading(ticks, ownSeconds));
  assert.equal(share([200, 0, 50, 1100, 10, 0, 0, 0, 90, 0], 2), 0);
  assert.equal(share([200, 0, 50, 1100, 10, 0, 0, 0, 90, 0], 1.5), 0.25);
  assert.equal(share([200, 0, 50, 1100, 10, 0, 0, 200, 70, 0], 2), 0.5);
  assert.equal(share([100, 0, 50, 1100, 110, 0, 0, 0, 70, 0], 1), 0);
});

test('a process has its own ticks and those of children that have ended, whatever its name', () => {
  const stat = '42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 700 50 30 20 20 0 1 0 9999';
  assert.equal(ownTicks(stat), 800);
  assert.equal(ownTicks(''), 0);
});

test('what cannot be read is unknown', () => {
  assert.equal(shareOfOthers({ stat: null, ownSeconds: 0 }, { stat: null, ownSeconds: 1 }), null);
  assert.equal(shareOfOthers(reading([1, 1, 1, 1], 0), reading([1, 1, 1, 1], 0)), null);
});

test('memory is read of processes that there are', { skip: process.platform !== 'linux' }, () => {
  assert.ok(peakRssMiB() > 10);
  assert.equal(peakRssMiB(2 ** 30), null);
});
