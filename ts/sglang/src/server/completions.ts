/** `/v1/completions`: plain text in, plain text out, in OpenAI's shape. */
import { SglangError } from '../engine/errors.ts';
import type { GenerateChunk, GenerateRequest, GenerateResult, Logprobs } from '../engine/types.ts';
import { allResults, submitAll } from './calls.ts';
import type { Call, Route, Submission } from './calls.ts';
import { streamEvents } from './event-stream.ts';
import { boolean, integer, needed, notYet, object, standingOf } from './fields.ts';
import { completionLogprobs, concat, noLogprobs } from './logprobs.ts';
import { checkModel } from './models.ts';
import {
  ending,
  fieldNames,
  openaiEvents,
  openaiFields,
  promptsOf,
  secondsNow,
  streamedEnding,
  texts,
  usageOfResults,
  type Prompt,
} from './openai.ts';
import { fromOpenAI } from './sampling.ts';

/** OpenAI's default where the request names no `max_tokens`. */
const defaultMaxTokens = 16;

const body = object({
  ...openaiFields,
  prompt: needed(texts),
  best_of: integer(1, 128),
  echo: boolean,
  logprobs: integer(0, 20),
  suffix: notYet,
});

type Body = ReturnType<typeof body>;

export const completionRoutes: readonly Route[] = [
  { methods: ['post'], paths: ['/v1/completions'], fieldName: fieldNames('prompt'), takesBody: true, answer: complete },
];

async function complete(call: Call): Promise<void> {
  const asked = body(call.body, '');
  checkModel(call, asked.model);
  const prompts = promptsOf(call, asked.prompt, 'prompt');
  const best = bestOf(asked);
  const requests = prompts.map((prompt) => requestOf(asked, prompt, best));
  const submissions = submitAll(call, requests, asked.rid);
  const frame = frameOf(call, submissions);
  if (asked.stream) return streamEvents(call, events(call, asked, prompts, submissions, frame));
  const results = await allResults(submissions);
  const kept = results.map((samples) => bestSamples(samples, asked.n ?? 1));
  const choice = (result: GenerateResult, prompt: Prompt) => wholeChoice(call, asked, prompt, result);
  const choices = kept.flatMap((samples, i) => samples.map((result) => choice(result, prompts[i]!)));
  call.res.json({ ...frame(choices.map((entry, index) => ({ index, ...entry }))), usage: usageOfResults(results) });
}

/** Samples to draw; the `n` best of them are kept. */
function bestOf({ best_of, n = 1, stream }: Body): number {
  if (best_of === undefined || best_of === n) return n;
  if (best_of < n)
    throw new SglangError('bad_request', `best_of: expected at least n (${n}), got ${best_of}`, 'best_of');
  if (stream) throw new SglangError('bad_request', 'best_of: more than n cannot be streamed', 'best_of');
  return best_of;
}

function bestSamples(samples: readonly GenerateResult[], n: number): readonly GenerateResult[] {
  if (samples.length <= n) return samples;
  const score = ({ meta }: GenerateResult) => {
    const { tokens } = meta.outputLogprobs ?? noLogprobs();
    return tokens.reduce((sum, token) => sum + (token.logprob ?? 0), 0) / Math.max(tokens.length, 1);
  };
  return [...samples].sort((one, other) => score(other) - score(one)).slice(0, n);
}

function requestOf(asked: Body, prompt: Prompt, samples: number): GenerateRequest {
  const params = fromOpenAI(asked);
  const withLogprobs = asked.logprobs !== undefined;
  return {
    ...(typeof prompt === 'string' ? { prompt } : { inputIds: prompt }),
    samplingParams: { ...params, maxNewTokens: params.maxNewTokens ?? defaultMaxTokens, n: samples },
    returnLogprob: withLogprobs || samples > (asked.n ?? 1),
    logprobStartLen: withLogprobs && asked.echo ? 0 : undefined,
    topLogprobsNum: asked.logprobs,
    ...standingOf(asked),
    extraKey: asked.extra_key,
  };
}

function frameOf({ modelName }: Call, submissions: readonly Submission[]) {
  const head = {
    id: `cmpl-${submissions[0]!.rid}`,
    object: 'text_completion',
    created: secondsNow(),
    model: modelName,
  };
  return (choices: unknown[]) => ({ ...head, choices });
}

function textOf({ engine }: Call, prompt: Prompt): string {
  return typeof prompt === 'string' ? prompt : engine.detokenize(prompt, { skipSpecialTokens: false });
}

function wholeChoice(call: Call, asked: Body, prompt: Prompt, { text, meta }: GenerateResult) {
  const echoed = asked.echo ? textOf(call, prompt) : '';
  const all = concat((asked.echo && meta.inputLogprobs) || noLogprobs(), meta.outputLogprobs);
  const logprobs = asked.logprobs === undefined ? null : completionLogprobs(call.engine, all, asked.logprobs);
  return { text: echoed + text, logprobs, ...ending(meta) };
}

/** The first piece of a choice carries the echo and its tokens; offsets run through the whole choice. */
function events(
  call: Call,
  asked: Body,
  prompts: readonly Prompt[],
  submissions: readonly Submission[],
  frame: (choices: unknown[]) => object,
) {
  const lengths = new Map<number, number>();
  const logprobsOf = (logprobs: Logprobs | undefined, offset: number) =>
    asked.logprobs === undefined || !logprobs
      ? {}
      : { logprobs: completionLogprobs(call.engine, logprobs, asked.logprobs, offset) };
  const show = (chunk: GenerateChunk, index: number, i: number) => {
    const offset = lengths.get(index) ?? 0;
    const text = (asked.echo && !lengths.has(index) ? textOf(call, prompts[i]!) : '') + chunk.text;
    lengths.set(index, offset + text.length);
    // Those of the prompt are asked for with an echo only.
    const { inputLogprobs, outputLogprobs } = chunk;
    const logprobs = inputLogprobs ? concat(inputLogprobs, outputLogprobs) : outputLogprobs;
    return [{ index, text, ...logprobsOf(logprobs, offset), ...streamedEnding(chunk.meta) }];
  };
  const sources = submissions.map(({ chunks }) => chunks);
  return openaiEvents(sources, asked, frame, show);
}
