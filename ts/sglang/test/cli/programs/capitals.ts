/** A program with answers of its own; where the environment says so, some of them fail or never come. */
import { setTimeout as sleep } from 'node:timers/promises';
import { FakeBackend, fn, gen } from '../../../src/index.ts';

const { FAIL = 'none', STUCK = 'none' } = process.env;

export const backend = new FakeBackend({
  replies: [
    [FAIL, new Error('out of ink')],
    [STUCK, (_prompt, { signal }) => sleep(60_000, ' never', { signal })],
    ['France', ' Paris'],
    ['Japan', ' Tokyo'],
    ['Peru', ' Lima'],
  ],
});

export const capital = fn(
  (s, { country = 'France' }: { country?: string }) => s`The capital of ${country} is${gen('capital')}`,
);
