/** One model behind every backend there is: a `FakeBackend` that is reached over each wire. */
import type { ExecutionContext } from 'ava';
import { aiSdkBackend, createSglang } from '../../src/backends/ai-sdk.ts';
import { engineBackend } from '../../src/backends/engine.ts';
import type { EngineLike, GenerateRequest, TokenLogprob } from '../../src/engine/types.ts';
import {
  Anthropic,
  FakeBackend,
  OpenAI,
  RuntimeEndpoint,
  Speculative,
  type Backend,
  type FakeReply,
  type GenerateOptions,
  type GenMeta,
  type Turn,
} from '../../src/index.ts';
import { scriptedServer } from './scripted-server.ts';

/** The text, or the text of an API's JSON around it. */
const value =
  (json: unknown): FakeReply =>
  (_, { jsonSchema }) => {
    const wrapped = jsonSchema?.includes('"value"') ? { value: json } : json;
    return jsonSchema || typeof json === 'object' ? JSON.stringify(wrapped) : String(json);
  };
/** The choice that the model likes. */
const LIKED = 'blue';
const model = () =>
  new FakeBackend({
    replies: [
      [/q(\d)/, (prompt) => `answer ${/.*q(\d)/s.exec(prompt)![1]}\nmore`],
      ['a number', value(7)],
      ['a colour', value(LIKED)],
      ['a thing', value({ ok: true })],
    ],
    pieceLength: 3,
  });

async function answer(turns: readonly Turn[], options: GenerateOptions) {
  const pieces: string[] = [];
  let end: GenMeta | undefined;
  for await (const { text, meta } of model().stream(turns, options)) {
    if (text !== '') pieces.push(text);
    end = meta ?? end;
  }
  return { pieces, meta: end! };
}

type Wire = { role: Turn['role']; content: string | readonly { type: string; text?: string }[] };
const turnsOf = (messages: readonly Wire[]): Turn[] =>
  messages.map(({ role, content }) => ({
    role,
    content: typeof content === 'string' ? [content] : content.map(({ text = '<image>' }) => text),
    open: false,
  }));
const textTurn = (text: string): Turn[] => [{ role: null, content: [text], open: true }];
/** A character is a token here; those of a text that ends as the model likes are likely. */
const scored = (text: string, start = 0): TokenLogprob[] =>
  [...text]
    .slice(start)
    .map((letter) => ({ tokenId: letter.charCodeAt(0), logprob: text.endsWith(LIKED) ? -0.1 : -5 }));

async function openai(t: ExecutionContext): Promise<Backend> {
  const { url } = await scriptedServer(t, async ({ body }) => {
    const jsonSchema = body.response_format && JSON.stringify(body.response_format.json_schema.schema);
    const { pieces, meta } = await answer(turnsOf(body.messages), {
      stop: body.stop,
      maxTokens: body.max_tokens,
      jsonSchema,
    });
    const usage = { prompt_tokens: meta.promptTokens, completion_tokens: meta.completionTokens };
    const deltas = pieces.map((content) => ({ choices: [{ index: 0, delta: { content } }] }));
    return {
      events: [...deltas, { choices: [{ index: 0, delta: {}, finish_reason: meta.finishReason }], usage }, '[DONE]'],
    };
  });
  return new OpenAI('m', { baseURL: url });
}

async function anthropic(t: ExecutionContext): Promise<Backend> {
  const { url } = await scriptedServer(t, async ({ body }) => {
    const jsonSchema = body.tools && JSON.stringify(body.tools[0].input_schema);
    const options = { stop: body.stop_sequences, maxTokens: body.max_tokens, jsonSchema };
    const { pieces, meta } = await answer(turnsOf(body.messages), options);
    const start = { type: 'message_start', message: { usage: { input_tokens: meta.promptTokens } } };
    const deltas = pieces.map((text) => ({ type: 'content_block_delta', delta: { type: 'text_delta', text } }));
    const end = {
      type: 'message_delta',
      delta: { stop_reason: 'end_turn' },
      usage: { output_tokens: meta.completionTokens },
    };
    return { events: [start, ...deltas, end] };
  });
  return new Anthropic('m', { baseURL: url, apiKey: 'k' });
}

async function endpoint(t: ExecutionContext): Promise<Backend> {
  const { url } = await scriptedServer(t, async ({ path, body }) => {
    if (path === '/get_model_info') return { json: { model_path: 'chatml' } };
    if (path === '/get_server_info') return { json: {} };
    const { max_new_tokens: maxTokens, stop } = body.sampling_params;
    if (maxTokens === 0) {
      const one = (text: string) => ({
        text: '',
        meta_info: {
          finish_reason: { type: 'length', length: 0 },
          prompt_tokens: text.length,
          completion_tokens: 0,
          input_token_logprobs: scored(text, body.logprob_start_len).map(({ logprob, tokenId }) => [logprob, tokenId]),
        },
      });
      return { json: Array.isArray(body.text) ? body.text.map(one) : one(body.text) };
    }
    const { pieces, meta } = await answer(textTurn(body.text), { stop, maxTokens });
    const counts = { prompt_tokens: meta.promptTokens, completion_tokens: meta.completionTokens };
    const end = { text: pieces.join(''), meta_info: { ...counts, finish_reason: { type: meta.finishReason } } };
    if (!body.stream) return { json: end };
    const soFar = pieces.map((_, i) => pieces.slice(0, i + 1).join(''));
    const events = soFar.map((text) => ({ text, meta_info: { finish_reason: null } }));
    return { events: [...events, end, '[DONE]'] };
  });
  return new RuntimeEndpoint(url);
}

function engine(): Backend {
  const metaOf = (text: string, { finishReason, ...meta }: GenMeta) => ({
    ...{ id: '0', e2eLatency: 0, ...meta, finishReason: { type: finishReason, matched: null } },
    inputLogprobs: { tokens: scored(text), top: [], ofTokens: [] },
    outputLogprobs: undefined,
  });
  const generate = ({ prompt = '', samplingParams: { maxNewTokens, stop } = {}, logprobStartLen }: GenerateRequest) => {
    const run = () => answer(textTurn(prompt), { maxTokens: maxNewTokens, stop: stop as string[] });
    return {
      // oxlint-disable-next-line unicorn/no-thenable -- as generations are
      then: (onResult: (result: object) => unknown) =>
        run().then(({ meta }) => {
          const inputLogprobs = { tokens: scored(prompt, logprobStartLen), top: [], ofTokens: [] };
          return onResult({ text: '', meta: { ...metaOf(prompt, meta), promptTokens: prompt.length, inputLogprobs } });
        }),
      async *[Symbol.asyncIterator]() {
        const { pieces, meta } = await run();
        for (const text of pieces) yield { index: 0, text, outputIds: [] };
        yield { index: 0, text: '', outputIds: [], meta: metaOf(prompt, meta) };
      },
    };
  };
  const card = { modelPath: 'chatml', chatTemplate: null, bosToken: null, bosTokenId: null, eosToken: null };
  return engineBackend({ model: card, generate, tokenize: () => [] } as unknown as EngineLike);
}

export const everyBackend: Record<string, (t: ExecutionContext) => Backend | Promise<Backend>> = {
  FakeBackend: model,
  Engine: engine,
  RuntimeEndpoint: endpoint,
  OpenAI: openai,
  Anthropic: anthropic,
  'a model of the AI SDK': () => aiSdkBackend(createSglang(model())('m')),
  'Speculative OpenAI': async (t) => new Speculative(await openai(t)),
};
