/** The native wire: streams, templates, choices, and what differs between this project's server and the original. */
import test, { type ExecutionContext } from 'ava';
import { RuntimeEndpoint, Trace, fn, gen, genInt, image, select } from '../../src/index.ts';
import { tools } from './letter-model.ts';
import { scriptedServer, type Answer, type Asked } from './scripted-server.ts';
import { selectCases } from './select-cases.ts';

const stop = { type: 'stop', matched: '\n' };
const piece = (text: string, finish_reason: unknown = null) => ({
  text,
  meta_info: { finish_reason, prompt_tokens: 3, completion_tokens: 2, cached_tokens: 1 },
});
const streamed = (...texts: string[]): Answer => ({
  events: [...texts.map((text) => piece(text)), piece(texts.at(-1)!, stop), '[DONE]'],
});
const info = (more: object): Answer => ({
  json: { model_path: 'meta-llama/Llama-2-7b-chat-hf', is_generation: true, ...more },
});

/** A server that is as old as not to know how it streams, unless `flags` say so. */
async function server(
  t: ExecutionContext,
  generate: (asked: Asked, nth: number) => Answer,
  model: object = {},
  flags?: object,
) {
  let generated = 0;
  const { url, asked } = await scriptedServer(t, (one) => {
    if (one.path === '/get_model_info') return info(model);
    if (one.path === '/get_server_info') return flags ? { json: flags } : { status: 404, json: {} };
    return generate(one, generated++);
  });
  return { backend: new RuntimeEndpoint(url, { retryDelay: 1 }), asked };
}

test('cumulative text becomes pieces, without halves of characters', async (t) => {
  const { backend, asked } = await server(t, () => streamed(' Par', ' Par', ' Paris \uFFFD', ' Paris 🙂'));
  const run = fn((s) => s`A:${gen('a', { maxTokens: 9, stop: '\n', seed: 5, minTokens: 1 })}`).run(
    {},
    { backend, temperature: 0 },
  );
  const pieces: string[] = [];
  for await (const text of run.textStream('a')) pieces.push(text);
  t.deepEqual(pieces, [' Par', 'is ', '🙂']);
  t.deepEqual((await run).meta('a'), { promptTokens: 3, completionTokens: 2, cachedTokens: 1, finishReason: 'stop' });
  const sampling_params = { max_new_tokens: 9, min_new_tokens: 1, temperature: 0, stop: ['\n'], sampling_seed: 5 };
  t.like(asked[0], { method: 'POST', path: '/generate', body: { text: 'A:', sampling_params, stream: true } });
});

test('a template of the server is used; one of the model’s family where the server has none', async (t) => {
  const program = fn((s) => s.user('hi').assistant(gen('a')));
  const own = await server(t, () => streamed('x'), {
    chat_template: "{% for m in messages %}[{{ m['content'] }}]{{ eos_token }}{% endfor %}",
    eos_token: '!',
  });
  t.is((await program.run({}, own)).text(), '[hi]![x]!');
  const original = await server(t, () => streamed(' x'));
  t.is((await program.run({}, original)).text(), '[INST] hi [/INST] x </s>');
  t.is(original.asked.filter(({ path }) => path === '/get_model_info').length, 1);
  const { url } = await scriptedServer(t, ({ path }) => (path === '/get_model_info' ? info({}) : streamed('x')));
  const backend = new RuntimeEndpoint(url, { chatTemplate: 'chatml' });
  t.is(
    (await program.run({}, { backend })).text(),
    '<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nx<|im_end|>\n',
  );
});

test('a grammar in Lark’s notation travels under its own name', async (t) => {
  const { backend, asked } = await server(t, () => streamed('x'));
  await fn((s) => s`A:${gen('a', { lark: 'start: "x"' })}`).run({}, { backend });
  t.like(asked[0]!.body.sampling_params, { lark: 'start: "x"', ebnf: undefined });
});

test('plain prompts do not ask for the template; a failure to get it is not remembered', async (t) => {
  const plain = await server(t, () => streamed('x'));
  await fn((s) => s`A:${gen('a')}`).run({}, plain);
  t.deepEqual(
    plain.asked.map(({ path }) => path),
    ['/generate', '/get_server_info'],
  );
  let failed = false;
  const { url } = await scriptedServer(t, ({ path }) => {
    if (path !== '/get_model_info') return streamed(' x');
    const first = !failed;
    failed = true;
    return first ? { status: 400, json: {} } : info({});
  });
  const backend = new RuntimeEndpoint(url);
  const program = fn((s) => s.user('hi').assistant(gen('a')));
  await t.throwsAsync(async () => program.run({}, { backend }));
  t.is((await program.run({}, { backend })).vars.a, ' x');
});

test('constraints, pictures and log-probabilities are on the wire', async (t) => {
  const top = [[[-0.5, 17, '7'] as const, [-2, 18, '8'] as const]];
  const logprobs = {
    ...piece('7', stop).meta_info,
    output_token_logprobs: [[-0.5, 17, '7']],
    output_top_logprobs: top,
  };
  const { backend, asked } = await server(t, () => ({ events: [{ text: '7', meta_info: logprobs }, '[DONE]'] }));
  const result = await fn((s) => s`${image(new Uint8Array([0xff, 0xd8, 0xff]))}n=${genInt('n', { logprobs: 2 })}`).run(
    {},
    { backend },
  );
  t.is(result.vars.n, 7);
  const seven = { logprob: -0.5, tokenId: 17, text: '7' };
  const alternatives = [seven, { logprob: -2, tokenId: 18, text: '8' }];
  t.deepEqual(result.meta('n').logprobs, [{ ...seven, top: alternatives }]);
  t.like(asked[0]!.body, {
    text: '<image>n=',
    image_data: ['data:image/jpeg;base64,/9j/'],
    return_logprob: true,
    top_logprobs_num: 2,
  });
  t.regex('-12 ', new RegExp(`^(${asked[0]!.body.sampling_params.regex})$`));
  t.deepEqual(asked[0]!.body.sampling_params.stop, [' ', '\n']);
});

/** Scores like a server. The original leaves out the first log-probability of what is asked for. */
function scorer(leavesOutFirst: boolean, takesLists: boolean) {
  const one = (ids: number[], start: number | undefined) => {
    const triples =
      start === undefined
        ? undefined
        : tools
            .logprobs(ids, start)
            .map(({ logprob, tokenId }, i) => [
              i === 0 && leavesOutFirst ? null : logprob,
              tokenId,
              tools.vocabulary[tokenId],
            ]);
    return {
      text: '',
      meta_info: {
        finish_reason: { type: 'length', length: 0 },
        prompt_tokens: ids.length,
        completion_tokens: 0,
        input_token_logprobs: triples,
      },
    };
  };
  return ({ body }: Asked): Answer => {
    const { text, input_ids, logprob_start_len, sampling_params } = body;
    if (sampling_params.max_new_tokens !== 0) return { status: 500, json: { error: 'nothing is to be generated' } };
    if (Array.isArray(text) || Array.isArray(input_ids?.[0])) {
      if (!takesLists)
        return { status: 422, json: { error: { message: 'invalid type: sequence, expected a string' } } };
      const lists: number[][] = text ? text.map((item: string) => tools.encode(item)) : input_ids;
      return { json: lists.map((ids) => one(ids, logprob_start_len)) };
    }
    return { json: one(input_ids ?? tools.encode(text), logprob_start_len) };
  };
}

for (const [name, leavesOutFirst, takesLists] of [
  ['this project’s server', false, true],
  ['the original', true, true],
  ['a router', false, false],
] as const) {
  for (const { title, prompt, choices, method, expected } of selectCases) {
    test(`select at ${name}: ${title}`, async (t) => {
      const { backend } = await server(t, scorer(leavesOutFirst, takesLists));
      const result = await fn((s) => s(prompt, select('x', choices, { method }))).run({}, { backend });
      t.is(result.vars.x, expected);
    });
  }
}

for (const [what, flags, texts, alternatives] of [
  ['all text so far', { stream_output: false }, ['1', '1 1', '1 1 \u{1F642}'], [1, 2, 3]],
  ['its new text', { stream_output: true }, ['1', ' 1', ' \u{1F642}'], [1, 1, 1]],
  [
    'its new text beside all log-probabilities',
    { incremental_streaming_output: true },
    ['1', ' 1', ' \u{1F642}'],
    [1, 2, 3],
  ],
] as const) {
  test(`a server whose events tell ${what}`, async (t) => {
    const all = [
      [-0.5, 1, '1'],
      [-1, 2, ' 1'],
      [-2, 3, ' \u{1F642}'],
    ];
    const events = texts.map((text, i) => {
      const output_token_logprobs = all.slice(i + 1 - alternatives[i]!, i + 1);
      const meta = { ...piece('', i === 2 ? stop : null).meta_info, completion_tokens: i + 1 };
      return {
        text,
        meta_info: {
          ...meta,
          output_token_logprobs,
          output_top_logprobs: output_token_logprobs.map((token) => [token]),
        },
      };
    });
    const { backend, asked } = await server(t, () => ({ events: [...events, '[DONE]'] }), {}, flags);
    const program = fn((s) => s`A:${gen('a', { logprobs: 1 })}`);
    for (let i = 0; i < 2; i++) {
      const result = await program.run({}, { backend });
      t.is(result.vars.a, '1 1 \u{1F642}');
      const told = result.meta('a').logprobs!;
      t.deepEqual(
        told.map(({ tokenId }) => tokenId),
        [1, 2, 3],
      );
      t.deepEqual(
        told.map(({ top }) => top![0]!.tokenId),
        [1, 2, 3],
      );
    }
    t.is(asked.filter(({ path }) => path === '/get_server_info').length, 1);
  });
}

test('without a limit a server goes on as far as the context does', async (t) => {
  const { backend, asked } = await server(t, () => streamed('x'));
  await fn((s) => s`A:${gen('a', { maxTokens: Infinity })}`).run({}, { backend });
  t.is(asked[0]!.body.sampling_params.max_new_tokens, null);
});

test('a prompt that is refused says nothing of lists', async (t) => {
  const score = scorer(false, true);
  let refuses = true;
  const { backend, asked } = await server(t, (one) =>
    refuses && one.body.return_logprob ? { status: 400, json: { error: { message: 'no' } } } : score(one),
  );
  const pick = fn((s) => s`Use a${select('x', [' calculator', 'web'])}`);
  await t.throwsAsync(async () => pick.run({}, { backend }), { message: /no/ });
  refuses = false;
  asked.length = 0;
  await pick.run({}, { backend });
  t.is(asked.filter(({ body }) => Array.isArray(body.text)).length, 1);
});

test('lists are refused once, then no more sent', async (t) => {
  const { backend, asked } = await server(t, scorer(false, false));
  const pick = fn((s) => s`Use a${select('x', [' calculator', 'web'])}`);
  await pick.run({}, { backend });
  await pick.run({}, { backend });
  t.is(asked.filter(({ body }) => Array.isArray(body.text)).length, 1);
});

test('errors of the server come through: refused, in the stream, aborted, broken off', async (t) => {
  const answers: Answer[] = [
    { status: 400, json: { error: { message: 'too long', code: 'context_length_exceeded' } } },
    { events: [piece('x'), { error: { message: 'out of memory' } }] },
    { events: [piece('x', { type: 'abort', message: 'shut down' })] },
    { events: [piece('x')] },
  ];
  const { backend } = await server(t, (_, nth) => answers[nth]!);
  const program = fn((s) => s`A:${gen('a')}`);
  for (const message of [/too long/, /out of memory/, /aborted: shut down/, /ended its stream without/]) {
    await t.throwsAsync(async () => program.run({}, { backend }), { message });
  }
});

test('an abort hangs up', async (t) => {
  const { backend, asked } = await server(t, () => ({ events: [piece('x')], hang: true }));
  const run = fn((s) => s`A:${gen('a')}`).run({}, { backend });
  await t.throwsAsync(async () => {
    for await (const _ of run.textStream('a')) run.abort(new Error('enough'));
  });
  await asked[0]!.gone;
  t.pass();
});

test('rows of a batch are asked for whole, unless the program follows its own text or is traced', async (t) => {
  const whole = (asked: Asked): Answer => (asked.body.stream ? streamed('x') : { json: piece('x', stop) });
  const { backend, asked } = await server(t, whole);
  const streams = async (run: PromiseLike<unknown>) => {
    await run;
    return asked.splice(0).flatMap(({ path, body }) => (path === '/generate' ? [body.stream] : []));
  };
  const plain = fn((s, { q }: { q: string }) => s`${q}${gen('a', { logprobs: true })}`);
  const followed = fn(async (s, { q }: { q: string }) => {
    const state = s`${q}${gen('a')}`;
    for await (const _ of state.stream());
    return state;
  });
  const rows = [{ q: '1' }, { q: '2' }];
  t.deepEqual(await streams(plain.runBatch(rows, { backend })), [undefined, undefined]);
  t.deepEqual(await streams(followed.runBatch(rows, { backend })), [true, true]);
  t.deepEqual(await streams(plain.runBatch(rows, { backend, trace: new Trace() })), [true, true]);
  t.deepEqual(await streams(plain.run({ q: '1' }, { backend })), [true]);
});

test('every request of a standing has its priority, and its salt as the original knows it', async (t) => {
  const { url, asked } = await scriptedServer(t, (one) => {
    if (one.path !== '/generate') return { status: 404, json: {} };
    return one.body.stream ? streamed('x') : scorer(false, true)(one);
  });
  const backend = new RuntimeEndpoint(url, { priority: 2, cacheSalt: 'tenant' });
  await fn(async (s) => {
    await s`Use a`.fork(2).join();
    return s` ${select('tool', ['calculator', 'web'])}${gen('more')}`;
  }).run({}, { backend });
  const generated = asked.filter(({ path }) => path === '/generate');
  t.true(generated.length >= 4);
  for (const { body } of generated) t.deepEqual([body.priority, body.extra_key], [2, 'tenant']);
});

test('flushing and warming are requests of their own', async (t) => {
  const { backend, asked } = await server(t, ({ path }) =>
    path === '/flush_cache' ? { json: 'flushed' } : scorer(false, true)(asked.at(-1)!),
  );
  await fn(async (s) => {
    await s`Use a`.fork(2).join();
    return s;
  }).run({}, { backend });
  await backend.flushCache();
  t.deepEqual(
    asked.map(({ path, body }) => [path, body?.text, body?.sampling_params?.max_new_tokens]),
    [
      ['/generate', 'Use a', 0],
      ['/flush_cache', undefined, undefined],
    ],
  );
});
