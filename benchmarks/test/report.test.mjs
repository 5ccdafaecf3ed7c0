/** A record as text and as a picture. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { comparison } from '../comparison.mjs';
import { renderPlot } from '../plot.mjs';
import { renderRecord } from '../report.mjs';
import { run } from './runs.mjs';

function record({ othersCpu, failures = [], rival }) {
  const ours = run([[10, 20, 30]], {
    wallSeconds: 0.002,
    peakRssMiB: 1234.5,
    othersCpu,
    cachedTokens: 2,
    oracleHitRate: 0.5,
  });
  return {
    date: '2026-11-23T10:00:00.000Z',
    node: 'v20.0.0',
    machine: { cpu: 'Some <CPU>', cores: 2, memoryGiB: 24 },
    threads: 2,
    model: { file: 'some.gguf' },
    rounds: 1,
    trial: false,
    peers: { sglang: { version: '0.1.0', device: 'cpu' }, rival: { version: null, device: null } },
    rows: [{ workload: 'W4', streams: 8, ...comparison({ sglang: [ours], rival: [rival] }, 'sglang') }],
    failures,
  };
}

const slower = () => run([[100, 103, 106.126]], { wallSeconds: 0.004, othersCpu: null, cachedTokens: null });

test('a line for each peer, with the ratio at the rival; columns that nobody fills are left out', () => {
  assert.equal(
    renderRecord(record({ othersCpu: 0.02, rival: slower() })),
    `2026-11-23: Some <CPU>, 2 cores, 24 GiB; 2 threads; some.gguf; Node v20.0.0; medians of 1 interleaved runs, the ratio within rounds.
Engines: sglang 0.1.0 on cpu; rival ? on ?.

| workload | streams | engine | tok/s | ours ÷ it | TTFT p50 / p99 ms | inter-token p50 / p99 ms | prompt from cache, of ideal | wall s | peak RSS MiB | load s | CPU used by others |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| W4 | 8 | sglang | 1,500 |  | 10 / 10 | 10 / 10 | 40 %, 80 % | 0.002 | 1,235 | 0.5 | 2 % |
| W4 | 8 | rival | 750 | 2.00 × | 100 / 100 | 3 / 3.13 |  | 0.004 | 100 | 0.5 |  |

- W4 at 8: 2 × the best rival, at least 4: MISSED
- W4 at 8: 0.1 of the best rival's TTFT p50, at most 1: met
- W4 at 8: 0.1 of the best rival's TTFT p99, at most 1: met
- W4 at 8: 3.2 of the best rival's inter-token p99, at most 1: MISSED`,
  );
});

test('a busy machine and what failed are told above the table', () => {
  const text = renderRecord(record({ othersCpu: 0.66, rival: null, failures: ['W4 at 8, rival: it died'] }));
  assert.match(text, /^Not quiet: other processes used up to 66 % of the CPU\.$/m);
  assert.match(text, /^Failed: W4 at 8, rival: it died$/m);
  assert.match(text, /^\| W4 \| 8 \| rival \|  \|/m);
});

test('a bar is as long as its speed, says so in words, and text is escaped', () => {
  const plot = renderPlot(record({ rival: slower() }));
  const lengths = [...plot.matchAll(/<rect class="(\w+)"[^>]* width="([\d.]+)"/g)].map(([, kind, width]) => [
    kind,
    Number(width),
  ]);
  assert.deepEqual(lengths, [
    ['ours', lengths[0][1]],
    ['rival', lengths[0][1] / 2],
  ]);
  assert.match(plot, />750 · ours is 2\.00 ×</);
  assert.match(plot, /Some &#60;CPU&#62;/);
});

test('a run that failed is a line without a bar', () => {
  const plot = renderPlot(record({ rival: null }));
  assert.equal(plot.match(/<rect/g).length, 1);
  assert.match(plot, />no result</);
});
