/** What completions and chat completions share: fields, usage, why a choice ended, and the order of a stream. */
import { SglangError } from '../engine/errors.ts';
import type { GenerateChunk, GenerateMeta, GenerateResult, SamplingParams } from '../engine/types.ts';
import type { Call, Submission } from './calls.ts';
import { merge } from './event-stream.ts';
import { boolean, either, integer, limit, listOf, object, string, tokenIds } from './fields.ts';
import { openaiSampling } from './sampling.ts';

export const openaiFields = {
  ...openaiSampling,
  model: string,
  stream: boolean,
  stream_options: object({ include_usage: boolean }),
  rid: string,
  priority: integer(-limit, limit),
  cache_salt: string,
  extra_key: string,
};

/** One prompt or several, each as text or as token ids. */
export const texts = either(string, listOf(string, 'strings'), tokenIds, listOf(tokenIds, 'lists of token ids'));

export type Prompt = string | number[];

export function promptsOf(given: ReturnType<typeof texts>, name: string): Prompt[] {
  const prompts = (typeof given === 'string' || typeof given[0] === 'number' ? [given] : given) as Prompt[];
  if (prompts.length === 0) throw new SglangError('bad_request', `${name}: the list is empty`, name);
  return prompts;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
}

type Counts = Pick<GenerateMeta, 'promptTokens' | 'completionTokens' | 'cachedTokens'>;

/** One entry per sample, in lists of one prompt each: a prompt's own tokens are counted once, whatever its `n`. */
export function usageOf(metas: readonly (readonly Counts[])[]): Usage {
  const sum = (count: (meta: Counts) => number, list: readonly Counts[]) =>
    list.reduce((total, meta) => total + count(meta), 0);
  const firsts = metas.flatMap((samples) => samples.slice(0, 1));
  const prompt_tokens = sum((meta) => meta.promptTokens, firsts);
  const completion_tokens = sum((meta) => meta.completionTokens, metas.flat());
  const cached_tokens = sum((meta) => meta.cachedTokens, firsts);
  const total_tokens = prompt_tokens + completion_tokens;
  return { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details: { cached_tokens } };
}

export function usageOfResults(results: readonly (readonly GenerateResult[])[]): Usage {
  return usageOf(results.map((samples) => samples.map((sample) => sample.meta)));
}

/** `matched_stop` is the stop string or token id, null where none ended the text. */
export function ending({ finishReason }: Pick<GenerateMeta, 'finishReason'>) {
  return {
    finish_reason: finishReason.type,
    matched_stop: finishReason.type === 'stop' ? finishReason.matched : null,
  };
}

/** The same on the wire of a stream: null until the end, and no null `matched_stop`. */
export function streamedEnding(meta: GenerateMeta | undefined) {
  if (!meta) return { finish_reason: null };
  const { finish_reason, matched_stop } = ending(meta);
  return matched_stop === null ? { finish_reason } : { finish_reason, matched_stop };
}

/** What all objects of one chat answer begin with. */
export function chatHead({ modelName }: Call, rid: string, object: string) {
  return { id: `chatcmpl-${rid}`, object, created: secondsNow(), model: modelName };
}

export function secondsNow(): number {
  return Math.floor(Date.now() / 1000);
}

/**
 * The events of a stream: those that `show` makes of each piece, and at the end the usage where it was asked for.
 * `choice` counts through all samples of all prompts.
 */
export async function* openaiEvents(
  submissions: readonly Submission[],
  samplingParams: SamplingParams,
  withUsage: boolean,
  frame: (choices: unknown[]) => object,
  show: (chunk: GenerateChunk, choice: number, prompt: number) => unknown[],
): AsyncGenerator<object> {
  const n = samplingParams.n ?? 1;
  const metas: GenerateMeta[][] = submissions.map(() => []);
  for await (const [prompt, chunk] of merge(submissions.map((submission) => submission.chunks))) {
    if (chunk.meta) metas[prompt]!.push(chunk.meta);
    for (const choice of show(chunk, prompt * n + chunk.index, prompt)) yield frame([choice]);
  }
  if (withUsage) yield { ...frame([]), usage: usageOf(metas) };
}
