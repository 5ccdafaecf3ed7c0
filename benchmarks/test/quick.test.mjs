/** The command itself, on the default model: every workload runs quick, alone, and keeps a record and a plot. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readRecord } from '../record.mjs';
import { workloads } from '../workloads.mjs';

const program = fileURLToPath(new URL('../run.mjs', import.meta.url));
const isBuilt = existsSync(new URL('../../ts/sglang/dist/cli.js', import.meta.url));

test('every workload runs quick', { skip: isBuilt ? false : 'the package is not built' }, (t) => {
  const args = [program, ...Object.keys(workloads), '--quick', '--peers', '', '--streams', '4'];
  const output = execFileSync(process.execPath, args, { encoding: 'utf8' });
  const file = /^record: (.*)$/m.exec(output)[1];
  t.after(() => [file, file.replace(/json$/, 'svg')].forEach((each) => rmSync(each)));
  const { rows, trial } = readRecord(file);
  assert.ok(trial && existsSync(file.replace(/json$/, 'svg')));
  const medians = Object.fromEntries(rows.map(({ workload, peers }) => [workload, peers.sglang.median]));
  assert.deepEqual(Object.keys(medians), Object.keys(workloads));
  for (const [id, { tokensPerSecond }] of Object.entries(medians)) assert.ok(tokensPerSecond > 0, id);
  for (const id of ['W1', 'W7', 'W8']) assert.ok(medians[id].hitRate >= 0.96 * medians[id].oracleHitRate, id);
  assert.ok(medians.W4.schedulingShare > 0 && medians.W4.schedulingShare < 1);
  assert.equal(medians.W5.validShare, 1);
  assert.ok(medians.cold.firstTokenSeconds > 0 && medians.cold.beyondModelMiB > 0);
});
