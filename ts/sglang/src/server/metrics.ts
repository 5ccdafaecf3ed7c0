/**
 * The counters of `/metrics`, under the names of the original. What the engine counts is read from `stats()` when it is
 * asked for; only latencies are measured here, at the place where a generation's pieces pass by.
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { EngineStats, GenerateChunk } from '../engine/types.ts';

const gauges: Record<string, [help: string, read: (stats: EngineStats) => number]> = {
  num_running_reqs: ['Requests that are running', (s) => s.running],
  num_queue_reqs: ['Requests that wait', (s) => s.waiting],
  num_used_tokens: ['Tokens of the KV cache held by requests', usedTokens],
  token_usage: ['Share of the KV cache held by requests', (s) => ratio(usedTokens(s), s.totalTokens)],
  max_total_num_tokens: ['Size of the KV cache in tokens', (s) => s.totalTokens],
  kv_available_tokens: ['Tokens of the KV cache that nothing uses', (s) => s.freeTokens],
  kv_evictable_tokens: ['Cached tokens that no request holds', (s) => s.evictableTokens],
  kv_used_tokens: ['Tokens of the KV cache held by requests', usedTokens],
  kv_cached_tokens: ['Tokens in the tree of prefixes, held or not', (s) => s.cachedTokens],
  kv_leased_tokens: ['Tokens of the KV cache private to requests', (s) => s.leasedTokens],
  gen_throughput: ['Output tokens per second over the last seconds', (s) => s.generationThroughput],
  prompt_throughput: ['Prompt tokens per second over the last seconds', (s) => s.promptThroughput],
  cache_hit_rate: ['Share of prompt tokens found in the cache', (s) => s.cacheHitRate],
  num_retracted_reqs: ['Requests sent back to the queue for lack of memory', (s) => s.retractedTotal],
};

const counters: Record<string, [help: string, read: (stats: EngineStats) => number]> = {
  prompt_tokens_total: ['Prompt tokens', (s) => s.promptTokensTotal],
  generation_tokens_total: ['Generated tokens', (s) => s.generationTokensTotal],
  cached_tokens_total: ['Prompt tokens found in the cache', (s) => s.cachedPromptTokensTotal],
  computed_tokens_total: ['Tokens computed, those of retracted requests twice', (s) => s.computedTokensTotal],
  evicted_tokens_total: ['Tokens evicted from the cache', (s) => s.evictedTokensTotal],
  num_requests_total: ['Requests that ran to their end', (s) => s.finishedTotal],
  num_aborted_requests_total: ['Aborted requests', (s) => s.abortedTotal],
  num_retracted_requests_total: ['Requests sent back to the queue for lack of memory', (s) => s.retractedTotal],
  steps_total: ['Steps run', (s) => s.stepsTotal],
  forward_execution_seconds_total: ['Time in the model, sampling included', (s) => s.runSeconds],
};

/** Stages of a step, in their order, as `stage` of `step_seconds_total`. */
const stages: Record<string, (stats: EngineStats) => number> = {
  admit: (s) => s.admitSeconds,
  schedule: (s) => s.scheduleSeconds,
  run: (s) => s.runSeconds,
  commit: (s) => s.commitSeconds,
  emit: (s) => s.emitSeconds,
};

const seconds = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100];

/** What requests hold, alone or together: all but what is free or could be. */
export function usedTokens(stats: EngineStats): number {
  return stats.totalTokens - stats.freeTokens - stats.evictableTokens;
}

export function ratio(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole;
}

export class Metrics {
  readonly registry = new Registry();
  private readonly firstToken = this.histogram('time_to_first_token_seconds', 'From request to first token');
  private readonly betweenTokens = this.histogram('inter_token_latency_seconds', 'Between tokens of one sample');
  private readonly queued = this.histogram('queue_time_seconds', 'From request to the start of its computation');
  private readonly endToEnd = this.histogram('e2e_request_latency_seconds', 'From request to end');

  constructor(stats: () => EngineStats, modelName: string) {
    const registers = [this.registry];
    this.registry.setDefaultLabels({ model_name: modelName });
    for (const [name, [help, read]] of Object.entries(gauges)) {
      const gauge: Gauge = new Gauge({
        name: `sglang:${name}`,
        help,
        registers,
        collect: () => gauge.set(read(stats())),
      });
    }
    for (const [name, [help, read]] of Object.entries(counters)) {
      const counter: Counter = new Counter({
        name: `sglang:${name}`,
        help,
        registers,
        collect() {
          counter.reset();
          counter.inc(read(stats()));
        },
      });
    }
    const times: Counter = new Counter({
      name: 'sglang:step_seconds_total',
      help: 'Time in each stage of the steps',
      labelNames: ['stage'],
      registers,
      collect() {
        times.reset();
        for (const [stage, read] of Object.entries(stages)) times.inc({ stage }, read(stats()));
      },
    });
  }

  /** Passes the pieces of a generation on and times them from the moment of this call. */
  async *timed(chunks: AsyncIterable<GenerateChunk>, start = performance.now()): AsyncGenerator<GenerateChunk> {
    const last = new Map<number, number>();
    const admitted = new Set<number>();
    for await (const chunk of chunks) {
      const now = performance.now();
      const before = last.get(chunk.index);
      if (chunk.admitted && !admitted.has(chunk.index)) {
        admitted.add(chunk.index);
        this.queued.observe(chunk.admitted.queueTime);
      }
      if (chunk.outputIds.length > 0) {
        if (before === undefined) this.firstToken.observe((now - start) / 1000);
        else this.betweenTokens.observe((now - before) / 1000 / chunk.outputIds.length);
        last.set(chunk.index, now);
      }
      if (chunk.meta) this.endToEnd.observe((now - start) / 1000);
      yield chunk;
    }
  }

  private histogram(name: string, help: string): Histogram {
    return new Histogram({ name: `sglang:${name}`, help, buckets: seconds, registers: [this.registry] });
  }
}
