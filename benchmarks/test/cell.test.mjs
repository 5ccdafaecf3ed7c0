/** A process that cannot measure says why, whatever it was that went wrong. */
import assert from 'node:assert/strict';
import { EventEmitter } from 'node:events';
import { test } from 'node:test';
import { measureApart, outcome } from '../cell.mjs';

test('a peer that cannot be loaded is named', async () => {
  await assert.rejects(
    measureApart({ peer: 'nobody', workload: 'W4' }),
    /^Error: no peer is called "nobody"; there are /,
  );
});

for (const [code, signal, end] of [
  [1, null, 'code 1'],
  [null, 'SIGSEGV', 'SIGSEGV'],
]) {
  test(`a process that dies with ${end} is told by its end, unless it had reported`, async () => {
    const [silent, done] = [new EventEmitter(), new EventEmitter()];
    const outcomes = [outcome(silent), outcome(done)];
    done.emit('message', { run: { version: '1' } });
    for (const child of [silent, done]) child.emit('close', code, signal);
    await assert.rejects(outcomes[0], { message: `the process ended without a result, with ${end}` });
    assert.deepEqual(await outcomes[1], { version: '1' });
  });
}
