/** Chat answers with calls of tools. */
import type { GenerateRequest, SamplingParams } from '../engine/types.ts';
import { answerWithCalls, seedOfPart, type AnswerPiece, type PartOptions, type Writer } from '../templates/answer.ts';
import { shownTools, type Calls } from '../templates/tools.ts';
import { submit, type Call } from './calls.ts';
import type { ChatRequest } from './chat.ts';
import { merge } from './event-stream.ts';

/** A piece of one of the `n` answers. */
export type ChoicePiece = AnswerPiece & { index: number };

/** Each of the `n` answers goes its own way through generations of the same prompt. */
export async function* withCalls(
  call: Call,
  { messages, continueFinalMessage, chatTemplateOptions, ...request }: ChatRequest,
  rid: string,
  calls: Calls,
): AsyncGenerator<ChoicePiece, void> {
  const { seed, n = 1 } = request.samplingParams;
  const shown = shownTools(messages, calls);
  const variables = { ...shown.variables, ...chatTemplateOptions };
  const prompt = call.engine.applyChatTemplate(shown.messages, { continueFinalMessage, variables });
  const answers = Array.from({ length: n }, (_, i) => {
    const samplingParams = { ...request.samplingParams, seed: seed === undefined ? undefined : seed + i };
    return answerWithCalls(writerOf(call, { ...request, prompt, samplingParams }, rid), calls);
  });
  for await (const [index, piece] of merge(answers)) yield { index, ...piece };
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
      const part = { ...request, prompt: request.prompt + answer, samplingParams: { ...paramsOf(options), ...own } };
      return submit(call, part, rid, { goesOn: parts > 0 }).chunks;
    },
  };
}
