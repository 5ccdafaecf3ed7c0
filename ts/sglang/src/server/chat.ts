/** `/v1/chat/completions`: messages in, the assistant's message out, in OpenAI's shape. */
import { randomUUID } from 'node:crypto';
import { SglangError } from '../engine/errors.ts';
import type { ChatMessage, EngineLike, GenerateRequest, SamplingParams } from '../engine/types.ts';
import type { AnswerPiece } from '../templates/answer.ts';
import { callsOf } from '../templates/tools.ts';
import { submit } from './calls.ts';
import type { Call, Route, Submission } from './calls.ts';
import { withCalls, type ChoicePiece } from './chat-tools.ts';
import { imagesOf, messageList, toMessages } from './chat-messages.ts';
import { streamEvents } from './event-stream.ts';
import { boolean, integer, needed, notYet, object, record, standingOf } from './fields.ts';
import { chatLogprobs, concat, noLogprobs } from './logprobs.ts';
import { strangersImages } from './images.ts';
import { checkModel } from './models.ts';
import { ending, fieldNames, openaiEvents, openaiFields, secondsNow, streamedEnding, usageOf } from './openai.ts';
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

type Body = ReturnType<typeof body>;

export type ChatRequest = GenerateRequest & { messages: readonly ChatMessage[]; samplingParams: SamplingParams };

export const chatRoutes: readonly Route[] = [
  {
    methods: ['post'],
    paths: ['/v1/chat/completions'],
    fieldName: fieldNames('messages'),
    takesBody: true,
    answer: chat,
  },
];

async function chat(call: Call): Promise<void> {
  const asked = body(call.body, '');
  checkModel(call, asked.model);
  const { rid = randomUUID(), n = 1, stream } = asked;
  const request = await withImages(requestOf(asked), call);
  const calls = callsOf(asked, call.engine.model);
  const pieces = calls ? withCalls(call, request, rid, calls) : freely(submit(call, request, rid));
  const [id, created] = [`chatcmpl-${rid}`, secondsNow()];
  const head = (object: string) => ({ id, object, created, model: call.modelName });
  const frame = (choices: unknown[]) => ({ ...head('chat.completion.chunk'), choices });
  if (stream) return streamEvents(call, openaiEvents([pieces], asked, frame, deltasOf(call.engine, asked)));
  const answers = Array.from({ length: n }, (): ChoicePiece[] => []);
  for await (const piece of pieces) answers[piece.index]!.push(piece);
  const choices = answers.map((answer, index) => ({ index, ...wholeChoice(call.engine, asked, answer) }));
  const usage = usageOf([answers.map((answer) => answer.at(-1)!.meta!)]);
  call.res.json({ ...head('chat.completion'), choices, usage });
}

async function* freely({ chunks }: Submission): AsyncGenerator<ChoicePiece, void> {
  for await (const { index, text, outputLogprobs, meta } of chunks)
    yield { index, content: text, logprobs: outputLogprobs, ...(meta && { meta: { ...meta, called: false } }) };
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
    ...standingOf(asked),
    extraKey: asked.extra_key,
  };
}

function wholeChoice(engine: EngineLike, asked: Body, pieces: readonly ChoicePiece[]) {
  const content = pieces.map((piece) => piece.content ?? '').join('');
  const argumentsOf = (index: number) =>
    pieces.map(({ goesOn }) => (goesOn?.index === index ? goesOn.arguments : '')).join('');
  const tool_calls = pieces.flatMap(({ begins }) =>
    begins ? { ...callHead(begins), function: { name: begins.name, arguments: argumentsOf(begins.index) } } : [],
  );
  const called = tool_calls.length > 0 && { tool_calls };
  const message = { role: 'assistant', content: called && content === '' ? null : content, refusal: null, ...called };
  const logprobs = pieces.reduce((all, piece) => concat(all, piece.logprobs), noLogprobs());
  return { message, logprobs: asked.logprobs ? chatLogprobs(engine, logprobs) : null, ...ending(pieces.at(-1)!.meta!) };
}

/** The role comes with the first delta of a choice and never again; a delta holds no empty text. */
function deltasOf(engine: EngineLike, asked: Body) {
  const started = new Set<number>();
  return ({ index, content, begins, goesOn, logprobs, meta }: ChoicePiece) => {
    const role = started.has(index) ? {} : { role: 'assistant' };
    started.add(index);
    const delta = { ...role, ...(content && { content }), ...callDelta(begins, goesOn) };
    const shown = asked.logprobs && logprobs && { logprobs: chatLogprobs(engine, logprobs) };
    if (Object.keys(delta).length === 0 && !shown && !meta) return [];
    return [{ index, delta, ...shown, ...streamedEnding(meta) }];
  };
}

function callDelta(begins: AnswerPiece['begins'], goesOn: AnswerPiece['goesOn']) {
  if (begins)
    return {
      tool_calls: [{ index: begins.index, ...callHead(begins), function: { name: begins.name, arguments: '' } }],
    };
  if (!goesOn?.arguments) return {};
  return { tool_calls: [{ index: goesOn.index, function: { arguments: goesOn.arguments } }] };
}

function callHead({ id }: NonNullable<AnswerPiece['begins']>) {
  return { id, type: 'function' };
}
