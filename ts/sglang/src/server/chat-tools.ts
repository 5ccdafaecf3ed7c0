/** Chat answers with calls of tools, whole and streamed, in OpenAI's shape. */
import { randomUUID } from 'node:crypto';
import type { GenerateRequest, SamplingParams } from '../engine/types.ts';
import {
  answerWithCalls,
  seedOfPart,
  type AnswerPiece,
  type PartMeta,
  type PartOptions,
  type Writer,
} from '../templates/answer.ts';
import { shownTools, type Calls } from '../templates/tools.ts';
import { submit, type Call } from './calls.ts';
import type { Body, ChatRequest } from './chat.ts';
import { merge, streamEvents } from './event-stream.ts';
import { chatLogprobs, concat, noLogprobs } from './logprobs.ts';
import { chatHead, ending, usageOf } from './openai.ts';

/** Each of the `n` answers goes its own way through generations of the same prompt. */
export async function chatWithCalls(
  call: Call,
  asked: Body,
  { messages, continueFinalMessage, chatTemplateOptions, ...request }: ChatRequest,
  calls: Calls,
): Promise<void> {
  const { rid = randomUUID(), n = 1 } = asked;
  const shown = shownTools(messages, calls);
  const variables = { ...shown.variables, ...chatTemplateOptions };
  const prompt = call.engine.applyChatTemplate(shown.messages, { continueFinalMessage, variables });
  const answers = Array.from({ length: n }, (_, i) => {
    const { seed } = request.samplingParams;
    const samplingParams = { ...request.samplingParams, seed: seed === undefined ? undefined : seed + i };
    return answerWithCalls(writerOf(call, { ...request, prompt, samplingParams }, rid), calls);
  });
  if (asked.stream) return streamEvents(call, callEvents(call, asked, rid, answers));
  const choices = await Promise.all(answers.map(async (answer) => wholeAnswer(await collected(answer))));
  call.res.json({
    ...chatHead(call, rid, 'chat.completion'),
    choices: choices.map(({ meta, message, logprobs }, index) => ({
      index,
      message,
      logprobs: asked.logprobs ? chatLogprobs(call.engine, logprobs) : null,
      ...callEnding(meta),
    })),
    usage: usageOf([choices.map(({ meta }) => meta)]),
  });
}

/** What is asked of the answer's own text and not of the parts of calls. */
const noneOfOwn: SamplingParams = {
  stop: undefined,
  stopTokenIds: undefined,
  minNewTokens: undefined,
  ignoreEos: undefined,
  regex: undefined,
  jsonSchema: undefined,
  ebnf: undefined,
  lark: undefined,
  structuralTag: undefined,
};

/** Goes on from `request.prompt`. */
function writerOf(call: Call, request: GenerateRequest & { prompt: string }, rid: string): Writer {
  const { samplingParams = {} } = request;
  const { stop = [], stopTokenIds = [], seed, maxNewTokens = Infinity } = samplingParams;
  const paramsOf = (options: PartOptions): SamplingParams =>
    'stop' in options
      ? {
          ...samplingParams,
          stop: [stop, options.stop].flat(),
          stopTokenIds: [...stopTokenIds, ...options.stopTokenIds],
          noStopTrim: false,
        }
      : { ...samplingParams, ...noneOfOwn, ...options };
  return {
    tokenOf: (text) => {
      const ids = call.engine.tokenize(text, { addSpecialTokens: false });
      return ids.length === 1 ? ids[0] : undefined;
    },
    write: (answer, options, spent, parts) => {
      const own = { seed: seedOfPart(seed, parts), maxNewTokens: maxNewTokens - spent, n: 1 };
      const params = { ...paramsOf(options), ...own };
      return submit(call, { ...request, prompt: request.prompt + answer, samplingParams: params }, rid).chunks;
    },
  };
}

async function collected(answer: AsyncIterable<AnswerPiece>): Promise<AnswerPiece[]> {
  const pieces = [];
  for await (const piece of answer) pieces.push(piece);
  return pieces;
}

function wholeAnswer(pieces: readonly AnswerPiece[]) {
  const content = pieces.map((piece) => piece.content ?? '').join('');
  const argumentsOf = (index: number) =>
    pieces.map(({ goesOn }) => (goesOn?.index === index ? goesOn.arguments : '')).join('');
  const tool_calls = pieces.flatMap(({ begins }) =>
    begins
      ? [{ id: begins.id, type: 'function', function: { name: begins.name, arguments: argumentsOf(begins.index) } }]
      : [],
  );
  const called = tool_calls.length > 0;
  return {
    message: {
      role: 'assistant',
      content: called && content === '' ? null : content,
      refusal: null,
      ...(called && { tool_calls }),
    },
    logprobs: pieces.reduce((all, { logprobs }) => concat(all, logprobs), noLogprobs()),
    meta: pieces.at(-1)!.meta!,
  };
}

/** An answer that ends with calls says so, unless it was cut off. */
function callEnding(meta: NonNullable<AnswerPiece['meta']>) {
  const { finish_reason, matched_stop } = ending(meta);
  if (!meta.called || finish_reason === 'length') return { finish_reason, matched_stop };
  return { finish_reason: 'tool_calls', matched_stop: null };
}

async function* callEvents(call: Call, asked: Body, rid: string, answers: readonly AsyncGenerator<AnswerPiece>[]) {
  const head = chatHead(call, rid, 'chat.completion.chunk');
  const metas: PartMeta[] = [];
  const started = new Set<number>();
  for await (const [index, { content, begins, goesOn, logprobs, meta }] of merge(answers)) {
    if (meta) metas.push(meta);
    const role = started.has(index) ? {} : { role: 'assistant' };
    const delta = { ...role, ...(content && { content }), ...callDelta(begins, goesOn) };
    const shown = asked.logprobs && logprobs && { logprobs: chatLogprobs(call.engine, logprobs) };
    if (Object.keys(delta).length === 0 && !shown && !meta) continue;
    started.add(index);
    const { finish_reason, matched_stop } = meta ? callEnding(meta) : { finish_reason: null, matched_stop: null };
    const choice = { index, delta, ...shown, finish_reason, ...(matched_stop !== null && { matched_stop }) };
    yield { ...head, choices: [choice] };
  }
  if (asked.stream_options?.include_usage) yield { ...head, choices: [], usage: usageOf([metas]) };
}

function callDelta(begins: AnswerPiece['begins'], goesOn: AnswerPiece['goesOn']) {
  if (begins) {
    const { index, id, name } = begins;
    return { tool_calls: [{ index, id, type: 'function', function: { name, arguments: '' } }] };
  }
  if (!goesOn?.arguments) return {};
  return { tool_calls: [{ index: goesOn.index, function: { arguments: goesOn.arguments } }] };
}
