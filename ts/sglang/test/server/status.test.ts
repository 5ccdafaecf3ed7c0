/** What operators and routers ask, who may ask, and how a server starts and stops. */
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import test from 'ava';
import { serve } from '../../src/server/serve.ts';
import { FakeEngine } from './fake-engine.ts';
import { eventsOf, startServer, until } from './harness.ts';

test('health is true while the engine lives', async (t) => {
  const { ask, engine } = await startServer(t);
  for (const path of ['/health', '/ping', '/health_generate', '/']) t.is((await ask(path)).status, 200, path);
  t.is(engine.requests.length, 1, 'only health_generate generates');
  await engine.close();
  t.is((await ask('/health')).status, 503);
});

test('health answers while requests run', async (t) => {
  const { ask, post, engine } = await startServer(t);
  const slow = post('/generate', { text: 'SLOW', rid: 'slow' });
  await until(() => engine.counts.running === 1);
  t.is((await ask('/health')).status, 200);
  await post('/abort_request', { rid: 'slow' });
  await slow;
});

test('model and server describe themselves', async (t) => {
  const { ask } = await startServer(t, { servedModelName: 'served', flags: { schedule_policy: 'lpm' } });
  const model = {
    model_path: 'fake/model',
    tokenizer_path: 'fake/model',
    served_model_name: 'served',
    model_type: 'fake',
    architectures: ['FakeForCausalLM'],
    is_generation: true,
    has_image_understanding: false,
    max_model_len: 200,
    chat_template: '{{ messages }}',
    bos_token: null,
    eos_token: '<eos>',
  };
  for (const path of ['/get_model_info', '/model_info']) t.deepEqual((await ask(path)).json, model);
  for (const path of ['/get_server_info', '/server_info']) {
    const { json } = await ask(path);
    t.like(json, { ...model, schedule_policy: 'lpm', tp_size: 1, dp_size: 1, max_total_num_tokens: 4096 });
    t.is(json.internal_states.length, 1);
  }
});

test('load for routers', async (t) => {
  const { ask, engine } = await startServer(t);
  Object.assign(engine.counts, {
    running: 2,
    waiting: 1,
    freeTokens: 2048,
    evictableTokens: 1024,
    cacheHitRate: 0.25,
  });
  t.deepEqual((await ask('/get_load')).json, [{ dp_rank: 0, num_reqs: 3, num_waiting_reqs: 1, num_tokens: 1024 }]);
  const { json } = await ask('/v1/loads?include=all');
  t.like(json.loads[0], { num_running_reqs: 2, num_waiting_reqs: 1, token_usage: 0.25, cache_hit_rate: 0.25 });
  t.truthy(Date.parse(json.timestamp));
  Object.assign(engine.counts, { running: 0, waiting: 0 });
});

test('metrics have the names and labels of the original', async (t) => {
  const { ask, post } = await startServer(t, { servedModelName: 'served' });
  await post('/generate', { text: 'ab', sampling_params: { max_new_tokens: 3 } });
  const { json: text } = await ask('/metrics');
  const value = (name: string) => new RegExp(`^sglang:${name}\\{model_name="served"\\} (.*)$`, 'm').exec(text)?.[1];
  t.is(value('prompt_tokens_total'), '2');
  t.is(value('generation_tokens_total'), '3');
  t.is(value('time_to_first_token_seconds_count'), '1');
  t.is(value('inter_token_latency_seconds_count'), '2');
  t.is(value('e2e_request_latency_seconds_count'), '1');
  t.deepEqual([value('queue_time_seconds_count'), value('queue_time_seconds_sum')], ['1', '0.25']);
  const others =
    'num_running_reqs num_queue_reqs num_used_tokens token_usage gen_throughput cache_hit_rate cached_tokens_total';
  for (const name of `${others} evicted_tokens_total num_retracted_reqs num_aborted_requests_total`.split(' ')) {
    t.is(value(name), '0', name);
  }
});

test('every number of the engine is a metric, with the same value', async (t) => {
  const { ask, engine } = await startServer(t);
  const names = Object.keys(engine.counts) as (keyof typeof engine.counts)[];
  names.forEach((name, i) => (engine.counts[name] = 1000 + i / 8));
  const { json: text } = await ask('/metrics');
  const values = [...String(text).matchAll(/^sglang:.* (\S+)$/gm)].map(([, value]) => Number(value));
  for (const name of names) t.true(values.includes(engine.counts[name]), name);
  for (const stage of ['admit', 'schedule', 'run', 'commit', 'emit'] as const) {
    const line = `sglang:step_seconds_total{stage="${stage}",model_name="fake/model"} ${engine.counts[`${stage}Seconds`]}`;
    t.true(String(text).includes(line), line);
  }
  Object.assign(engine.counts, { running: 0, waiting: 0 });
});

test('the tree of prefixes is shown, and its text only by leave of the operator', async (t) => {
  const closed = await startServer(t);
  const nodes = await closed.engine.radix();
  t.deepEqual((await closed.ask('/radix')).json, { nodes });
  const refused = await closed.ask('/radix?text=true');
  t.is(refused.status, 403);
  t.regex(refused.json.error.message, /--radix-text/);
  const { ask } = await startServer(t, { radixText: true });
  t.deepEqual((await ask('/radix')).json, { nodes });
  t.is((await ask('/radix?text=true')).json.nodes[1].text, 'a secret');
});

test('the cache is flushed when nothing runs, or once nothing does', async (t) => {
  const { ask, post, engine } = await startServer(t);
  for (const method of ['GET', 'POST']) {
    t.deepEqual((await ask('/flush_cache', { method })).json, { success: true, freed_tokens: 16 });
  }
  const slow = post('/generate', { text: 'SLOW', rid: 'slow' });
  await until(() => engine.counts.running === 1);
  t.is((await ask('/flush_cache')).status, 400);
  t.is((await ask('/flush_cache?timeout=soon')).status, 400);
  const later = ask('/flush_cache?timeout=30');
  await post('/abort_request', { abort_all: true });
  t.is((await later).status, 200);
  await slow;
});

test('text to tokens and back', async (t) => {
  const { post } = await startServer(t);
  for (const under of ['', '/v1']) {
    const one = await post(`${under}/tokenize`, { prompt: 'ab' });
    t.deepEqual(one.json, { tokens: [97, 98], count: 2, max_model_len: 200 });
    t.deepEqual((await post(`${under}/detokenize`, { tokens: [97, 98] })).json, { text: 'ab' });
  }
  t.deepEqual((await post('/tokenize', { prompt: ['a', 'bc'] })).json.count, [1, 2]);
  t.deepEqual((await post('/detokenize', { tokens: [[97], [98]] })).json, { text: ['a', 'b'] });
  const { json } = await post('/tokenize', { messages: [{ role: 'user', content: 'x' }] });
  t.is(json.count, '<user>x<assistant>'.length);
});

test('the Python client may concatenate what it then resends', async (t) => {
  const { post } = await startServer(t);
  t.is((await post('/concate_and_append_request', { src_rids: ['a'], dst_rid: 'b' })).status, 200);
});

test('with a key, only those who have it may ask more than whether the server is there', async (t) => {
  const { ask } = await startServer(t, { apiKey: 'right' });
  const withKey = (authorization: string) => ask('/v1/models', { headers: { authorization } });
  t.is((await withKey('Bearer right')).status, 200);
  for (const wrong of ['Bearer wrong', 'right', 'Basic right', 'Bearer right2'])
    t.is((await withKey(wrong)).status, 401, wrong);
  t.deepEqual(
    [(await ask('/v1/models')).status, (await ask('/health')).status, (await ask('/ping')).status],
    [401, 200, 200],
  );
  t.is((await ask('/metrics')).status, 401);
  t.is((await ask('/nowhere')).status, 401, 'what routes there are is not told either');
});

test('pages of another origin are let in when asked for', async (t) => {
  const { ask } = await startServer(t, { corsOrigin: 'http://page.example', apiKey: 'k' });
  const preflight = await ask('/generate', { method: 'OPTIONS', headers: { 'access-control-request-headers': 'x-a' } });
  t.is(preflight.status, 204, 'a preflight carries no key');
  t.is(preflight.headers.get('access-control-allow-origin'), 'http://page.example');
  t.is(preflight.headers.get('access-control-allow-headers'), 'x-a');
  const closed = await startServer(t);
  t.is((await closed.ask('/health')).headers.get('access-control-allow-origin'), null);
});

test('a port in use is said, with the flag that chooses another', async (t) => {
  const other = createServer().listen(0, '127.0.0.1');
  t.teardown(() => other.close());
  await until(() => other.listening);
  const { port } = other.address() as AddressInfo;
  await t.throwsAsync(serve(new FakeEngine(), { port }), {
    message: `port ${port} on 127.0.0.1 is in use; choose another with --port`,
  });
  await t.throwsAsync(serve(new FakeEngine(), { port: 0, host: '203.0.113.1' }), {
    message: /choose another with --host/,
  });
});

test('stopping lets requests finish, takes no new ones, and closes the engine', async (t) => {
  const engine = new FakeEngine(5);
  const server = await serve(engine, { port: 0 });
  const headers = { 'content-type': 'application/json' };
  const ask = (body: object) =>
    fetch(`${server.url}/generate`, { method: 'POST', headers, body: JSON.stringify(body) });
  const running = ask({ text: 'ab', stream: true });
  await until(() => engine.counts.running === 1);
  const stopped = server.stop();
  const events = eventsOf(await (await running).text());
  t.is(events.at(-1).meta_info.finish_reason.type, 'stop');
  await stopped;
  t.true(engine.closed);
  await t.throwsAsync(ask({ text: 'ab' }), { instanceOf: TypeError });
});

test('what does not finish in time is aborted', async (t) => {
  const engine = new FakeEngine();
  const server = await serve(engine, { port: 0 });
  const body = JSON.stringify({ text: 'SLOW' });
  const running = fetch(`${server.url}/generate`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body,
  });
  await until(() => engine.counts.running === 1);
  await server.stop(0);
  t.is(
    ((await (await running).json()) as { meta_info: { finish_reason: { type: string } } }).meta_info.finish_reason.type,
    'abort',
  );
  t.true(engine.closed);
});
