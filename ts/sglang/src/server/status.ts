/** What routers, operators and clients ask about a server: is it alive, what does it serve, how busy is it; and the few orders they give. */
import { setTimeout as sleep } from 'node:timers/promises';
import { version } from '../../package.json';
import { embeddingRequest, withDefaults } from '../engine/embedding.ts';
import { SglangError } from '../engine/errors.ts';
import type { EngineStats } from '../engine/types.ts';
import { submit } from './calls.ts';
import type { Call, Route, ServerState } from './calls.ts';
import { boolean, object, string } from './fields.ts';
import { ratio, usedTokens } from './metrics.ts';
import { HttpProblem } from './problem.ts';

export const statusRoutes: readonly Route[] = [
  {
    methods: ['get'],
    paths: ['/'],
    answer: ({ res, modelName }) => res.json({ name: 'sglang', version, model: modelName }),
  },
  { methods: ['get', 'post'], paths: ['/health', '/ping'], answer: health },
  { methods: ['get'], paths: ['/health_generate'], answer: healthGenerate },
  { methods: ['get'], paths: ['/get_model_info', '/model_info'], answer: (call) => call.res.json(modelInfo(call)) },
  { methods: ['get'], paths: ['/get_server_info', '/server_info'], answer: (call) => call.res.json(serverInfo(call)) },
  { methods: ['get'], paths: ['/get_load'], answer: ({ res, engine }) => res.json([shortLoad(engine.stats())]) },
  { methods: ['get'], paths: ['/v1/loads'], answer: loads },
  { methods: ['get'], paths: ['/metrics'], answer: metrics },
  { methods: ['get'], paths: ['/radix'], answer: radix },
  { methods: ['get', 'post'], paths: ['/flush_cache'], answer: flushCache },
  { methods: ['post'], paths: ['/abort_request'], takesBody: true, answer: abortRequest },
  // The Python client sends this before it resends the whole text; there is nothing to do, but it hangs on a 404.
  { methods: ['post'], paths: ['/concate_and_append_request'], answer: ({ res }) => res.json({ success: true }) },
];

/** 200 while requests can be served. A closed engine throws. */
function health({ engine, running, res }: Call): void {
  if (running.isStopped) throw new SglangError('engine_closed', 'the server is stopping');
  engine.stats();
  res.json({ status: 'ok' });
}

const healthSeconds = 20;

async function healthGenerate(call: Call): Promise<void> {
  const { model } = call.engine;
  const oneToken = { inputIds: [0], samplingParams: { maxNewTokens: 1, temperature: 0 } };
  const probe = submit(call, model.generates ? oneToken : embeddingRequest([0], withDefaults({}, model)));
  const late = sleep(healthSeconds * 1000, 'late', { signal: call.signal }).catch(() => 'late');
  if ((await Promise.race([probe.results(), late])) === 'late') {
    throw new HttpProblem(503, 'unhealthy', `no token came within ${healthSeconds} s`);
  }
  call.res.json({ status: 'ok' });
}

function modelInfo({ engine: { model }, modelName }: ServerState) {
  return {
    model_path: model.modelPath,
    tokenizer_path: model.tokenizerPath,
    served_model_name: modelName,
    model_type: model.modelType,
    architectures: model.architectures,
    is_generation: model.generates,
    has_image_understanding: model.takesImages,
    max_model_len: model.contextLength,
    chat_template: model.chatTemplate,
    bos_token: model.bosToken,
    eos_token: model.eosToken,
  };
}

function serverInfo(state: ServerState) {
  const { model } = state.engine;
  return {
    ...state.options.flags,
    ...modelInfo(state),
    version,
    tp_size: model.tp,
    dp_size: 1,
    device: model.device,
    dtype: model.dtype,
    max_total_num_tokens: model.maxTotalTokens,
    attention_backend: 'native',
    internal_states: [load(state.engine.stats())],
  };
}

function shortLoad(stats: EngineStats) {
  return {
    dp_rank: 0,
    num_reqs: stats.running + stats.waiting,
    num_waiting_reqs: stats.waiting,
    num_tokens: usedTokens(stats),
  };
}

function load(stats: EngineStats) {
  return {
    dp_rank: 0,
    num_running_reqs: stats.running,
    num_waiting_reqs: stats.waiting,
    num_used_tokens: usedTokens(stats),
    num_total_tokens: usedTokens(stats),
    max_total_num_tokens: stats.totalTokens,
    token_usage: ratio(usedTokens(stats), stats.totalTokens),
    gen_throughput: stats.generationThroughput,
    cache_hit_rate: stats.cacheHitRate,
  };
}

function loads({ engine, res }: Call): void {
  res.json({ timestamp: new Date().toISOString(), version, loads: [load(engine.stats())] });
}

async function metrics({ metrics: { registry }, res }: Call): Promise<void> {
  const text = await registry.metrics();
  res.type(registry.contentType).send(text);
}

/** The tree of cached prefixes for tools to draw. Its text is other people's prompts, so the operator must allow it. */
async function radix({ engine, options, req, res }: Call): Promise<void> {
  const text = req.query['text'] === 'true' || req.query['text'] === '1';
  if (text && !options.radixText) {
    throw new HttpProblem(
      403,
      'forbidden',
      'text: the server shows no text of cached prompts; start it with --radix-text',
    );
  }
  res.json({ nodes: await engine.radix({ text }) });
}

/** Refused while requests hold parts of the cache; `?timeout=` waits that many seconds for them. */
async function flushCache({ engine, req, res, signal }: Call): Promise<void> {
  const timeout = Number(req.query['timeout'] ?? 0);
  if (!(timeout >= 0)) throw new SglangError('bad_request', 'timeout: expected a number of seconds ≥ 0', 'timeout');
  const isBusy = () => engine.stats().running + engine.stats().waiting > 0;
  const deadline = performance.now() + timeout * 1000;
  while (isBusy() && performance.now() < deadline) await sleep(20, undefined, { signal });
  if (isBusy()) {
    const message = 'the cache cannot be flushed while requests run; ?timeout=<seconds> waits for them';
    throw new SglangError('bad_request', message);
  }
  res.json({ success: true, freed_tokens: await engine.flushCache() });
}

const abortBody = object({ rid: string, abort_all: boolean });

function abortRequest({ body, running, res }: Call): void {
  const { rid, abort_all: all } = abortBody(body, '');
  if (rid === undefined && !all)
    throw new SglangError('bad_request', 'rid: missing; expected a string, or abort_all', 'rid');
  const aborted = all ? running.abortAll('aborted by /abort_request') : running.abort(rid!);
  res.json({ success: true, aborted });
}
