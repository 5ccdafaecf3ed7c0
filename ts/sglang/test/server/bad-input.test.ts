/** What must not work, and what is said then: a table of requests with status, code, field and message. */
import { Readable } from 'node:stream';
import test from 'ava';
import { startServer } from './harness.ts';

const chat = (fields: object) => ({ messages: [{ role: 'user', content: 'x' }], ...fields });
const sampling = (fields: object) => ({ text: 'x', sampling_params: fields });

type Row = [path: string, body: unknown, status: number, param: string | null, message: RegExp];

const generateRows: Row[] = [
  ['/generate', {}, 400, 'text', /exactly one of text and input_ids/],
  ['/generate', { text: 'x', input_ids: [1] }, 400, 'text', /exactly one/],
  ['/generate', { text: 5 }, 400, 'text', /^text: expected a string or a list of strings, got 5$/],
  ['/generate', { text: ['x', 5] }, 400, 'text[1]', /^text\[1\]: expected a string, got 5$/],
  ['/generate', { text: [] }, 400, 'text', /empty/],
  ['/generate', { text: '' }, 400, 'text', /empty/],
  ['/generate', [1], 400, 'the body', /^the body: expected an object, got \[1\]$/],
  ['/generate', { input_ids: [1, -1] }, 400, 'input_ids', /expected a list of token ids or/],
  ['/generate', { input_ids: [1, 257] }, 400, 'input_ids[1]', /token id 257 is not in the vocabulary of 257/],
  ['/generate', { text: ['a', 'b'], sampling_params: [{}] }, 400, 'sampling_params', /a list of 2, one per prompt/],
  ['/generate', { text: 'a', rid: ['b'] }, 400, 'rid', /one value/],
  [
    '/generate',
    { text: ['a', 'b'], token_ids_logprob: [[1]] },
    400,
    'token_ids_logprob',
    /a list of 2, one per prompt/,
  ],
  ['/generate', { text: 'x', stream: 'yes' }, 400, 'stream', /^stream: expected true or false, got "yes"$/],
  ['/generate', { text: 'x', image_data: 'cat.png' }, 400, 'image_data', /does not take images/],
  ['/generate', { text: 'x', lora_path: 'a' }, 400, 'lora_path', /not supported yet/],
  ['/v1/completions', { prompt: 'x', lora_path: 'a' }, 400, 'lora_path', /not supported yet/],
  ['/generate', { text: 'x', top_logprobs_num: 1e9 }, 400, 'top_logprobs_num', /in \[0, 128\]/],
  ['/generate', sampling({ temperature: 'hot' }), 400, 'sampling_params.temperature', /a number ≥ 0, got "hot"/],
  ['/generate', sampling({ max_new_tokens: -1 }), 400, 'sampling_params.max_new_tokens', /a whole number in/],
  ['/generate', sampling({ max_new_tokens: 2 ** 32 }), 400, 'sampling_params.max_new_tokens', /a whole number in/],
  ['/generate', sampling({ max_new_tokens: 1.5 }), 400, 'sampling_params.max_new_tokens', /got 1.5/],
  ['/generate', sampling({ n: 1e9 }), 400, 'sampling_params.n', /in \[1, 128\]/],
  ['/generate', sampling({ top_p: 0 }), 400, 'sampling_params.top_p', /in \(0, 1\], got 0/],
  ['/generate', sampling({ stop: [1] }), 400, 'sampling_params.stop[0]', /expected a string/],
  ['/generate', sampling({ stop_regex: 'a' }), 400, 'sampling_params.stop_regex', /not supported yet/],
  ['/generate', sampling({ regex: 'a', ebnf: 'b' }), 400, 'sampling_params.ebnf', /at most one of/],
  ['/generate', sampling({ json_schema: '{' }), 400, 'sampling_params.json_schema', /expected JSON text/],
  ['/generate', sampling({ logit_bias: { a: 1 } }), 400, 'sampling_params.logit_bias', /got the key "a"/],
  ['/generate', sampling({ logit_bias: { 1: 101 } }), 400, 'sampling_params.logit_bias.1', /in \[-100, 100\]/],
];

const openaiRows: Row[] = [
  ['/v1/completions', {}, 400, 'prompt', /^prompt: missing; expected a string or/],
  [
    '/v1/completions',
    { prompt: 'x', temperature: 3 },
    400,
    'temperature',
    /^temperature: expected a number in \[0, 2\], got 3$/,
  ],
  ['/v1/completions', { prompt: 'x', suffix: 'y' }, 400, 'suffix', /not supported yet/],
  ['/v1/completions', { prompt: 'x', n: 2, best_of: 1 }, 400, 'best_of', /at least n \(2\)/],
  ['/v1/completions', { prompt: 'x', best_of: 2, stream: true }, 400, 'best_of', /cannot be streamed/],
  ['/v1/completions', { prompt: [] }, 400, 'prompt', /empty/],
  ['/v1/completions', { prompt: [999] }, 400, 'prompt[0]', /token id 999/],
  ['/v1/completions', { prompt: 'x', model: 5 }, 400, 'model', /expected a string/],
  ['/v1/chat/completions', {}, 400, 'messages', /missing/],
  ['/v1/chat/completions', { messages: [] }, 400, 'messages', /empty/],
  ['/v1/chat/completions', { messages: [{ content: 'x' }] }, 400, 'messages[0].role', /missing; expected "system" or/],
  ['/v1/chat/completions', { messages: [{ role: 'king', content: 'x' }] }, 400, 'messages[0].role', /got "king"/],
  ['/v1/chat/completions', { messages: [{ role: 'user', content: null }] }, 400, 'messages[0].content', /missing/],
  [
    '/v1/chat/completions',
    { messages: [{ role: 'user', content: [{ type: 'text' }] }] },
    ...([400, 'messages[0].content[0].text', /missing; expected a string/] as const),
  ],
  [
    '/v1/chat/completions',
    { messages: [{ role: 'user', content: [{ type: 'image_url' }] }] },
    ...([400, 'messages[0].content[0].image_url', /missing; expected an object/] as const),
  ],
  ['/v1/chat/completions', chat({ top_logprobs: 2 }), 400, 'top_logprobs', /needs logprobs/],
  ['/v1/chat/completions', chat({ logprobs: true, top_logprobs: 21 }), 400, 'top_logprobs', /in \[0, 20\]/],
  [
    '/v1/chat/completions',
    chat({ response_format: { type: 'xml' } }),
    400,
    'response_format.type',
    /"text" or "json_object"/,
  ],
  [
    '/v1/chat/completions',
    chat({ response_format: { type: 'json_schema' } }),
    400,
    'response_format.json_schema.schema',
    /missing/,
  ],
  ['/v1/chat/completions', chat({ stream: true, n: 0 }), 400, 'n', /in \[1, 128\]/],
  [
    '/v1/chat/completions',
    { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:' } }] }] },
    ...([400, 'image_data', /does not take images/] as const),
  ],
  ['/tokenize', {}, 400, 'prompt', /exactly one of prompt and messages/],
  ['/detokenize', { tokens: [300] }, 400, 'tokens[0]', /token id 300/],
  ['/detokenize', {}, 400, 'tokens', /missing/],
];

test('every bad field is named, with what would be right', async (t) => {
  const { post, ask, engine } = await startServer(t);
  for (const [path, body, status, param, message] of [...generateRows, ...openaiRows]) {
    const answer = await post(path, body);
    const label = `${path} ${JSON.stringify(body)}: ${JSON.stringify(answer.json)}`;
    t.is(answer.status, status, label);
    t.deepEqual(Object.keys(answer.json.error), ['message', 'type', 'param', 'code'], label);
    t.is(answer.json.error.param, param, label);
    t.regex(answer.json.error.message, message, label);
    t.is(answer.json.error.type, 'invalid_request_error', label);
  }
  t.is((await ask('/health')).status, 200);
  t.is(engine.counts.running, 0);
});

const json = { 'content-type': 'application/json' };

test('bodies that are not JSON in UTF-8', async (t) => {
  const { ask } = await startServer(t);
  const send = (body: RequestInit['body'], headers: Record<string, string> = json) =>
    ask('/generate', { method: 'POST', body, headers });
  const rows: [RequestInit['body'], Record<string, string>, number, string, RegExp][] = [
    [
      'text=x',
      { 'content-type': 'application/x-www-form-urlencoded' },
      415,
      'unsupported_media_type',
      /application\/json/,
    ],
    ['{}', { 'content-type': 'text/plain' }, 415, 'unsupported_media_type', /text\/plain/],
    [undefined, json, 400, 'bad_request', /empty/],
    ['{"text": x}', json, 400, 'invalid_json', /at position 9/],
    ['{"text": "x"', json, 400, 'invalid_json', /at position 12/],
    ['{"a": [1, 2,, 3]}', json, 400, 'invalid_json', /at position 12/],
    ['{"a": "b" "c"}', json, 400, 'invalid_json', /at position 10/],
    ['nul', json, 400, 'invalid_json', /at position 3/],
    ['{"text": "x", "priority": 1e400}', json, 400, 'bad_request', /^priority: .* got Infinity$/],
    ['['.repeat(501) + ']'.repeat(501), json, 400, 'bad_request', /nested more than 500 levels deep/],
    ['['.repeat(500) + ']'.repeat(500), json, 400, 'bad_request', /^the body: expected an object, got \[\[/],
    [new Uint8Array([0x22, 0xff, 0x22]), json, 400, 'invalid_utf8', /UTF-8/],
    ['{}', { ...json, 'content-encoding': 'zip' }, 415, 'unsupported_media_type', /zip/],
  ];
  for (const [body, headers, status, code, message] of rows) {
    const answer = await send(body, headers);
    const label = `${String(body)}: ${JSON.stringify(answer.json)}`;
    t.deepEqual([answer.status, answer.json.error.code], [status, code], label);
    t.regex(answer.json.error.message, message, label);
  }
});

test('a body over the limit is refused whether its length is announced or not', async (t) => {
  const { ask, post } = await startServer(t);
  const announced = await ask('/generate', { method: 'POST', headers: json, body: Buffer.alloc(100e6, 0x20) });
  t.deepEqual([announced.status, announced.json.error.code], [413, 'body_too_large']);
  const pieces = Readable.toWeb(Readable.from(Array.from({ length: 40 }, () => Buffer.alloc(1e6, 0x20))));
  const streamed = await ask('/generate', {
    method: 'POST',
    headers: json,
    body: pieces,
    duplex: 'half',
  } as RequestInit);
  t.is(streamed.status, 413);
  t.is((await post('/generate', { text: 'x', sampling_params: { max_new_tokens: 1 } })).status, 200);
});

test('a limit of our own choice', async (t) => {
  const { post } = await startServer(t, { maxBodyBytes: 100 });
  t.is((await post('/generate', { text: 'x'.repeat(100) })).status, 413);
});

test('routes that are not there, and methods that are not theirs', async (t) => {
  const { ask } = await startServer(t);
  const unknown = await ask('/v2/chat');
  t.deepEqual([unknown.status, unknown.json.error.code], [404, 'unknown_route']);
  const undecodable = await ask('/v1/models/%ZZ');
  t.deepEqual([undecodable.status, undecodable.json.error.code], [400, 'bad_request']);
  t.regex(unknown.json.error.message, /\/v1\/chat\/completions/);
  const wrong = await ask('/v1/chat/completions');
  t.deepEqual([wrong.status, wrong.headers.get('allow')], [405, 'POST']);
  t.regex(wrong.json.error.message, /GET is not allowed on \/v1\/chat\/completions; use POST/);
});

test('a full queue says when to come back', async (t) => {
  const { post } = await startServer(t);
  for (const body of [{ text: 'OVERLOAD' }, { text: 'OVERLOAD', stream: true }, { text: ['a', 'OVERLOAD'] }]) {
    const { status, headers, json } = await post('/generate', body);
    t.deepEqual([status, headers.get('retry-after'), json.error.code], [503, '1', 'overloaded']);
  }
});

test('a fault of ours is a 500 that tells nothing, and the server stays up', async (t) => {
  const { post, ask, events } = await startServer(t);
  for (const text of ['CRASHES_NOW', 'CRASHES_LATE']) {
    const { status, json } = await post('/generate', { text });
    t.deepEqual([status, json.error.code], [500, 'internal_error']);
    t.notRegex(JSON.stringify(json), /secret|\.ts/);
  }
  const seen = await events('/generate', { text: 'CRASHES_LATE', stream: true });
  t.deepEqual([seen.length, seen.at(-1).error.code], [4, 'internal_error']);
  t.is((await ask('/health')).status, 200);
});

test('one bad prompt of a list ends the others', async (t) => {
  const { post, engine } = await startServer(t);
  const { status } = await post('/generate', { text: ['SLOW', 'BREAKS_LATE'] });
  t.is(status, 500);
  for (let i = 0; i < 100 && engine.counts.abortedTotal === 0; i++) await new Promise((done) => setTimeout(done, 10));
  t.is(engine.counts.abortedTotal, 1);
});
