/** Verdicts over rows as a record has them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { verdicts } from '../targets.mjs';

const peer = (median, speed) => ({ median, ...(speed === undefined ? {} : { against: { speed } }) });

test('a ratio is held against the best rival, which is not the roof', () => {
  const row = {
    workload: 'decode',
    streams: 1,
    peers: { sglang: peer({}), roof: peer({}, 0.9), 'llama-bench': peer({}, 2.5) },
  };
  row.peers['node-llama-cpp'] = peer({}, 1.3);
  assert.deepEqual(verdicts([row]), [
    'decode at 1: 2.5 × llama-bench, at least 2: met',
    'decode at 1: 1.3 × the best rival, at least 1.4: MISSED',
    'decode at 1: 0.9 × roof, at least 0.85: met',
  ]);
});

test('targets of other numbers of streams, and figures that were not measured, are left out', () => {
  const row = { workload: 'batched', streams: 8, peers: { sglang: peer({}), 'llama-bench@q4_0': peer({}, 2) } };
  assert.deepEqual(verdicts([row]), ['batched at 8: 2 × llama-bench@q4_0, at least 2: met']);
  assert.deepEqual(
    verdicts([{ workload: 'W1', streams: 16, peers: { sglang: peer({}), 'llama-server': peer({}, null) } }]),
    [],
  );
});

test('latencies are at most those of the best rival, and what is reused nearly what can be', () => {
  const ours = peer({ ttftP50Ms: 30, ttftP99Ms: 30, interTokenP99Ms: 30, hitRate: 0.9, oracleHitRate: 0.92 });
  const rival = peer({ ttftP50Ms: 60, ttftP99Ms: 20, interTokenP99Ms: 30 }, 20);
  assert.deepEqual(verdicts([{ workload: 'W1', streams: 16, peers: { sglang: ours, 'llama-server': rival } }]), [
    'W1 at 16: 20 × the best rival, at least 15: met',
    'W1 at 16: 0.978 of what an ideal cache saves, at least 0.96: met',
    "W1 at 16: 0.5 of the best rival's TTFT p50, at most 1: met",
    "W1 at 16: 1.5 of the best rival's TTFT p99, at most 1: MISSED",
    "W1 at 16: 1 of the best rival's inter-token p99, at most 1: met",
  ]);
});

test('a target may be one contestant of ours', () => {
  const cold = {
    sglang: peer({ beyondModelMiB: 90, loadSeconds: 0.2 }),
    'sglang-generate': peer({ firstTokenSeconds: 0.4 }, 2),
  };
  assert.deepEqual(verdicts([{ workload: 'cold', streams: 1, peers: cold }]), [
    'cold at 1: 90 MiB beyond file and KV, at most 80: MISSED',
    'cold at 1: 0.2 s to load, at most 0.5: met',
    'cold at 1: 0.4 s to the first token of `sglang generate`, at most 1: met',
  ]);
});
