/** A record as text. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { comparison } from '../comparison.mjs';
import { renderRecord } from '../report.mjs';
import { run } from './runs.mjs';

function record({ othersCpu, failures = [], rival }) {
  const ours = run([[10, 20, 30]], { wallSeconds: 0.002, peakRssMiB: 1234.5, othersCpu });
  return {
    date: '2026-11-23T10:00:00.000Z',
    node: 'v20.0.0',
    machine: { cpu: 'Some CPU', cores: 2, memoryGiB: 24 },
    threads: 2,
    model: { file: 'some.gguf' },
    rounds: 1,
    trial: false,
    peers: { sglang: { version: '0.1.0', device: 'cpu' }, rival: { version: null, device: null } },
    rows: [{ workload: 'W4', streams: 8, ...comparison({ sglang: [ours], rival: [rival] }, 'sglang') }],
    failures,
  };
}

test('a line for each peer, with the ratio at the rival', () => {
  const rival = run([[100, 103, 106.126]], { wallSeconds: 0.004, othersCpu: null });
  assert.equal(
    renderRecord(record({ othersCpu: 0.02, rival })),
    `2026-11-23: Some CPU, 2 cores, 24 GiB; 2 threads; some.gguf; Node v20.0.0; medians of 1 interleaved runs, the ratio within rounds.
Engines: sglang 0.1.0 on cpu; rival ? on ?.

| workload | streams | engine | out tok/s | ours ÷ it | TTFT mean / p99 ms | inter-token p50 / p99 ms | wall s | peak RSS MiB | load s | CPU used by others |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| W4 | 8 | sglang | 1,500 |  | 10 / 10 | 10 / 10 | 0.002 | 1,235 | 0.5 | 2 % |
| W4 | 8 | rival | 750 | 2.00 × | 100 / 100 | 3 / 3.13 | 0.004 | 100 | 0.5 | – |`,
  );
});

test('a busy machine and what failed are told above the table', () => {
  const text = renderRecord(record({ othersCpu: 0.66, rival: null, failures: ['W4 at 8, rival: it died'] }));
  assert.match(text, /^Not quiet: other processes used up to 66 % of the CPU\.$/m);
  assert.match(text, /^Failed: W4 at 8, rival: it died$/m);
  assert.match(text, /^\| W4 \| 8 \| rival \| – \|  \| – \/ – \| – \/ – \| – \| – \| – \| – \|$/m);
});
