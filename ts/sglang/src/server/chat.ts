/** `/v1/chat/completions`: messages in, the assistant's message out, in OpenAI's shape. */
import { SglangError } from '../engine/errors.ts';
import type {
  ChatMessage,
  EngineLike,
  GenerateChunk,
  GenerateRequest,
  GenerateResult,
  SamplingParams,
} from '../engine/types.ts';
import { callsOf } from '../templates/tools.ts';
import { allResults, submitAll } from './calls.ts';
import type { Call, Route, Submission } from './calls.ts';
import { chatWithCalls } from './chat-tools.ts';
import { imagesOf, messageList, toMessages } from './chat-messages.ts';
import { streamEvents } from './event-stream.ts';
import { boolean, integer, needed, notYet, object, record } from './fields.ts';
import { chatLogprobs } from './logprobs.ts';
import { strangersImages } from './images.ts';
import { checkModel } from './models.ts';
import { chatHead, ending, openaiEvents, openaiFields, streamedEnding, usageOfResults } from './openai.ts';
import { fromOpenAI } from './sampling.ts';
import { toolFields } from './tools.ts';

const body = object({
  ...openaiFields,
  messages: needed(messageList),
  logprobs: boolean,
  top_logprobs: integer(0, 20),
  chat_template_kwargs: record,
  continue_final_message: boolean,
  ...toolFields,
  functions: notYet,
});

export type Body = ReturnType<typeof body>;

export type ChatRequest = GenerateRequest & { messages: readonly ChatMessage[]; samplingParams: SamplingParams };

export const chatRoutes: readonly Route[] = [
  { methods: ['post'], paths: ['/v1/chat/completions'], takesBody: true, answer: chat },
];

async function chat(call: Call): Promise<void> {
  const asked = body(call.body, '');
  checkModel(call, asked.model);
  const request = await withImages(requestOf(asked), call);
  const calls = callsOf(asked, call.engine.model);
  if (calls) return chatWithCalls(call, asked, request, calls);
  const submissions = submitAll(call, [request], [asked.rid]);
  if (asked.stream) return streamEvents(call, events(call, asked, submissions));
  const results = await allResults(submissions);
  const choices = results.flat().map((result, index) => wholeChoice(call.engine, asked, result, index));
  const head = chatHead(call, submissions[0]!.rid, 'chat.completion');
  call.res.json({ ...head, choices, usage: usageOfResults(results) });
}

/** Pictures are fetched by the rules for strangers before the engine sees their names. */
async function withImages(request: ChatRequest, { engine, signal }: Call): Promise<ChatRequest> {
  const named = imagesOf(request.messages);
  if (named.length === 0) return request;
  return { ...request, images: await strangersImages(named, engine, signal) };
}

function requestOf(asked: Body): ChatRequest {
  if (asked.top_logprobs && !asked.logprobs) {
    throw new SglangError('bad_request', 'top_logprobs: needs logprobs: true', 'top_logprobs');
  }
  const messages = toMessages(asked.messages);
  const samplingParams = fromOpenAI(asked);
  samplingParams.maxNewTokens ??= Infinity;
  return {
    messages,
    samplingParams,
    returnLogprob: asked.logprobs,
    topLogprobsNum: asked.top_logprobs,
    chatTemplateOptions: asked.chat_template_kwargs,
    continueFinalMessage: asked.continue_final_message,
    priority: asked.priority,
    cacheSalt: asked.cache_salt,
    extraKey: asked.extra_key,
  };
}

function wholeChoice(engine: EngineLike, asked: Body, { text, meta }: GenerateResult, index: number) {
  const logprobs = asked.logprobs && meta.outputLogprobs ? chatLogprobs(engine, meta.outputLogprobs) : null;
  return { index, message: { role: 'assistant', content: text, refusal: null }, logprobs, ...ending(meta) };
}

/** The role comes with the first delta of a choice and never again; a delta holds no empty text. */
function events(call: Call, asked: Body, submissions: readonly Submission[]) {
  const head = chatHead(call, submissions[0]!.rid, 'chat.completion.chunk');
  const started = new Set<number>();
  const show = (chunk: GenerateChunk, index: number) => {
    const role = started.has(index) ? {} : { role: 'assistant' };
    started.add(index);
    const delta = { ...role, ...(chunk.text !== '' && { content: chunk.text }) };
    const logprobs = asked.logprobs &&
      chunk.outputLogprobs && { logprobs: chatLogprobs(call.engine, chunk.outputLogprobs) };
    if (Object.keys(delta).length === 0 && !logprobs && !chunk.meta) return [];
    return [{ index, delta, ...logprobs, ...streamedEnding(chunk.meta) }];
  };
  const withUsage = asked.stream_options?.include_usage ?? false;
  return openaiEvents(submissions, fromOpenAI(asked), withUsage, (choices) => ({ ...head, choices }), show);
}
