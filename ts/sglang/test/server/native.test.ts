/** `/generate`: results, lists, samples, log-probabilities, streams, and the requests the Python client makes for a choice. */
import test from 'ava';
import { logprobAt } from './fake-engine.ts';
import { startServer, until } from './harness.ts';

const sum = (text: string) => [...Buffer.from(text)].reduce((total, id) => total + id, 0);

/** What the fake engine answers: the alphabet from a letter that the prompt decides. */
const answer = (prompt: string, length: number, sample = 0) =>
  Array.from({ length }, (_, i) => String.fromCharCode(97 + ((sum(prompt) + sample + i) % 26))).join('');

test('a prompt gives text, tokens and meta_info', async (t) => {
  const { post } = await startServer(t);
  const { status, json } = await post('/generate', {
    text: 'ab',
    rid: 'my-id',
    sampling_params: { max_new_tokens: 3 },
  });
  t.is(status, 200);
  t.is(typeof json.meta_info.e2e_latency, 'number');
  delete json.meta_info.e2e_latency;
  t.deepEqual(json, {
    text: answer('ab', 3),
    output_ids: [...Buffer.from(answer('ab', 3))],
    meta_info: {
      id: 'my-id',
      finish_reason: { type: 'length', length: 3 },
      prompt_tokens: 2,
      completion_tokens: 3,
      cached_tokens: 2,
      queue_time: 0.25,
    },
  });
});

test('input_ids are as good as text', async (t) => {
  const { post } = await startServer(t);
  const one = await post('/generate', { input_ids: [97, 98], sampling_params: { max_new_tokens: 3 } });
  t.is(one.json.text, answer('ab', 3));
  const two = await post('/generate', { input_ids: [[97], [98]], sampling_params: { max_new_tokens: 2 } });
  t.deepEqual(
    two.json.map((result: { text: string }) => result.text),
    [answer('a', 2), answer('b', 2)],
  );
});

test('a list gives a list, with parameters per prompt', async (t) => {
  const { post, engine } = await startServer(t);
  const sampling_params = [{ max_new_tokens: 1 }, { max_new_tokens: 2, temperature: 1e-9 }];
  const { json } = await post('/generate', { text: ['a', 'b'], sampling_params, rid: ['x', 'y'] });
  t.deepEqual(
    json.map((result: { text: string }) => result.text),
    [answer('a', 1), answer('b', 2)],
  );
  t.deepEqual(
    json.map((result: { meta_info: { id: string } }) => result.meta_info.id),
    ['x', 'y'],
  );
  t.is(engine.requests[1]!.samplingParams!.temperature, 0, 'what is nearly greedy is greedy');
  t.true(Array.isArray((await post('/generate', { text: ['a'] })).json), 'a list of one is a list');
});

test('as many tokens as the context leaves are null, as in the original; 128 where nothing is said', async (t) => {
  const { post, engine } = await startServer(t);
  for (const sampling_params of [{ max_new_tokens: null }, {}]) await post('/generate', { text: 'a', sampling_params });
  t.deepEqual(
    engine.requests.map(({ samplingParams }) => samplingParams!.maxNewTokens),
    [Infinity, undefined],
  );
});

test('n samples of a prompt are a list in order', async (t) => {
  const { post } = await startServer(t);
  const { json } = await post('/generate', { text: ['a', 'b'], sampling_params: { n: 2, max_new_tokens: 2 } });
  const expected = ['a', 'b'].flatMap((prompt) => [answer(prompt, 2, 0), answer(prompt, 2, 1)]);
  t.deepEqual(
    json.map((result: { text: string }) => result.text),
    expected,
  );
});

test('all sampling parameters reach the engine, null means the default', async (t) => {
  const { post, engine } = await startServer(t);
  const sampling_params = {
    max_new_tokens: 4,
    min_new_tokens: 1,
    stop: [],
    stop_token_ids: [7],
    temperature: 0.5,
    top_p: 0.9,
    top_k: 0,
    min_p: 0.1,
    frequency_penalty: 1,
    presence_penalty: -1,
    repetition_penalty: 1.5,
    n: 1,
    ignore_eos: true,
    skip_special_tokens: false,
    no_stop_trim: true,
    logit_bias: { 5: -3 },
    sampling_seed: 42,
    regex: null,
    json_schema: '{"type":"object"}',
    spaces_between_special_tokens: true,
    structural_tag: null,
  };
  t.is(
    (
      await post('/generate', {
        text: 'a',
        sampling_params,
        cache_salt: 's',
        extra_key: 'team',
        priority: 3,
        lora_path: null,
      })
    ).status,
    200,
  );
  const { samplingParams, cacheSalt, extraKey, priority } = engine.requests[0]!;
  t.deepEqual([cacheSalt, extraKey, priority], ['s', 'team', 3]);
  const defined = Object.entries(samplingParams!).filter(([, value]) => value !== undefined);
  t.deepEqual(Object.fromEntries(defined), {
    maxNewTokens: 4,
    minNewTokens: 1,
    stop: [],
    stopTokenIds: [7],
    temperature: 0.5,
    topP: 0.9,
    topK: -1,
    minP: 0.1,
    frequencyPenalty: 1,
    presencePenalty: -1,
    repetitionPenalty: 1.5,
    n: 1,
    ignoreEos: true,
    skipSpecialTokens: false,
    noStopTrim: true,
    logitBias: { 5: -3 },
    seed: 42,
    jsonSchema: '{"type":"object"}',
  });
});

test('dtype int of old clients is a regex with stops', async (t) => {
  const { post, engine } = await startServer(t);
  await post('/generate', { text: 'a', sampling_params: { dtype: 'int', stop: 'x' } });
  const { regex, stop } = engine.requests[0]!.samplingParams!;
  t.deepEqual({ regex, stop }, { regex: '[-+]?[0-9]+', stop: ['x', ' ', '\n'] });
});

test('log-probabilities come as triples, with text where asked for', async (t) => {
  const { post } = await startServer(t);
  const ask = { text: 'abc', return_logprob: true, logprob_start_len: 0, top_logprobs_num: 2, token_ids_logprob: [9] };
  const { json } = await post('/generate', {
    ...ask,
    return_text_in_logprobs: true,
    sampling_params: { max_new_tokens: 1 },
  });
  const { meta_info: meta } = json;
  const next = (sum('abc') % 26) + 97;
  t.deepEqual(meta.input_token_logprobs, [
    [null, 97, 'a'],
    [logprobAt(1, 98), 98, 'b'],
    [logprobAt(2, 99), 99, 'c'],
  ]);
  t.deepEqual(meta.output_token_logprobs, [[logprobAt(3, next), next, String.fromCharCode(next)]]);
  t.deepEqual(meta.input_top_logprobs[1], [
    [logprobAt(1, 65), 65, 'A'],
    [logprobAt(1, 66), 66, 'B'],
  ]);
  t.deepEqual(meta.output_token_ids_logprobs, [[[logprobAt(3, 9), 9, '\t']]]);
  t.is(meta.normalized_prompt_logprob, (logprobAt(1, 98) + logprobAt(2, 99)) / 2);
  const plain = await post('/generate', { text: 'abc', return_logprob: true, sampling_params: { max_new_tokens: 1 } });
  t.deepEqual(plain.json.meta_info.output_token_logprobs, [[logprobAt(3, next), next, null]]);
  t.false('input_token_logprobs' in plain.json.meta_info);
  t.false('output_top_logprobs' in plain.json.meta_info);
});

test('the requests that the Python client makes to choose an option', async (t) => {
  const { post } = await startServer(t);
  const zero = { max_new_tokens: 0, temperature: 0 };
  const prefix = await post('/generate', { text: 'It is a', sampling_params: zero });
  t.is(prefix.json.meta_info.prompt_tokens, 7);
  const { json } = await post('/generate', {
    text: ['It is a cat', 'It is a dogs'],
    sampling_params: zero,
    return_logprob: true,
    return_text_in_logprobs: true,
    logprob_start_len: 5,
    stream: false,
  });
  const { input_token_logprobs: input, output_token_logprobs: output } = json[1].meta_info;
  t.is(input.map(([, , text]: [number, number, string]) => text).join(''), ' a dogs');
  t.deepEqual(output, []);
  const ids = await post('/generate', { input_ids: [[97, 98]], sampling_params: zero, return_logprob: true });
  t.is(ids.json[0].meta_info.input_token_logprobs.length, 2, 'without a start all of the prompt is told');
});

test('an empty prompt that asks for nothing gets nothing', async (t) => {
  const { post, engine } = await startServer(t);
  const { status, json } = await post('/generate', { text: '', sampling_params: { max_new_tokens: 0 } });
  t.deepEqual([status, json.text, engine.requests.length], [200, '', 0]);
  t.is((await post('/generate', { text: '' })).status, 400);
});

test('a stream tells all text so far, and its last event everything', async (t) => {
  const { events } = await startServer(t);
  const seen = await events('/generate', { text: 'ab', stream: true, sampling_params: { max_new_tokens: 3 } });
  const texts = seen.map((event) => event.text as string);
  t.deepEqual(
    texts,
    [1, 2, 3, 3].map((length) => answer('ab', length)),
  );
  t.deepEqual(
    seen.map((event) => event.meta_info.finish_reason?.type ?? null),
    [null, null, null, 'length'],
  );
  t.true(seen.every(({ meta_info }) => meta_info.prompt_tokens === 2 && meta_info.cached_tokens === 2));
  t.deepEqual(seen.at(-1).output_ids, [...Buffer.from(answer('ab', 3))]);
  t.false(seen.some((event) => 'index' in event));
});

test('a stream of new text only, with stream-output', async (t) => {
  const { events } = await startServer(t, { streamOutput: true });
  const seen = await events('/generate', { text: 'ab', stream: true, sampling_params: { max_new_tokens: 3 } });
  t.is(seen.map((event) => event.text as string).join(''), answer('ab', 3));
  t.is(seen.flatMap((event) => event.output_ids as number[]).length, 3);
});

test('a stream of a list marks each event with its place', async (t) => {
  const { events } = await startServer(t);
  const body = { text: ['a', 'b'], stream: true, return_logprob: true, sampling_params: { n: 2, max_new_tokens: 2 } };
  const seen = await events('/generate', body);
  const last = new Map(seen.map((event) => [event.index as number, event]));
  t.deepEqual([...last.keys()].sort(), [0, 1, 2, 3]);
  t.is(last.get(3).text, answer('b', 2, 1));
  t.is(last.get(3).meta_info.output_token_logprobs.length, 2);
  const uneven = { text: ['a', 'b'], stream: true, sampling_params: [3, 1].map((n) => ({ n, max_new_tokens: 2 })) };
  const indices = (await events('/generate', uneven)).map((event) => event.index as number);
  t.deepEqual([...new Set(indices)].sort(), [0, 1, 2, 3]);
});

test('a stop string never shows and is told as the reason', async (t) => {
  const { post } = await startServer(t);
  const letter = answer('ab', 3)[2]!;
  const { json } = await post('/generate', { text: 'ab', sampling_params: { stop: [letter] } });
  t.is(json.text, answer('ab', 2));
  t.deepEqual(json.meta_info.finish_reason, { type: 'stop', matched: letter });
});

test('/abort_request ends a request by its rid, and all of them', async (t) => {
  const { post, engine } = await startServer(t);
  const one = post('/generate', { text: 'SLOW', rid: 'one' });
  const other = post('/generate', { text: 'SLOW', rid: 'other' });
  await until(() => engine.counts.running === 2);
  t.deepEqual((await post('/abort_request', { rid: 'one' })).json, { success: true, aborted: 1 });
  const { meta_info: meta } = (await one).json;
  t.deepEqual([meta.id, meta.finish_reason.type, meta.finish_reason.status_code], ['one', 'abort', null]);
  t.is(engine.counts.running, 1);
  t.is((await post('/abort_request', { abort_all: true })).json.aborted, 1);
  t.is((await other).status, 200);
  t.is((await post('/abort_request', {})).status, 400);
});

test('a client that goes away during a stream, or before it, ends its generation', async (t) => {
  const { url, engine } = await startServer(t);
  const leave = async (text: string) => {
    const control = new AbortController();
    const body = JSON.stringify({ text, stream: true, sampling_params: { max_new_tokens: 1e6, ignore_eos: true } });
    const headers = { 'content-type': 'application/json' };
    const asking = fetch(`${url}/generate`, { method: 'POST', headers, body, signal: control.signal });
    await until(() => engine.counts.running === 1);
    if (text !== 'SLOW') await (await asking).body!.getReader().read();
    const before = engine.counts.abortedTotal;
    control.abort();
    await asking.catch(() => {});
    await until(() => engine.counts.running === 0);
    t.is(engine.counts.abortedTotal, before + 1);
  };
  await leave('endless');
  await leave('SLOW');
});
