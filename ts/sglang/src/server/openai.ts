/** What completions and chat completions share: fields, usage, why a choice ended, and the order of a stream. */
import { SglangError } from '../engine/errors.ts';
import type { GenerateMeta, GenerateResult } from '../engine/types.ts';
import type { Call } from './calls.ts';
import { merge } from './event-stream.ts';
import {
  boolean,
  either,
  listOf,
  notYet,
  object,
  standing,
  string,
  tokenIds,
  withinVocabulary,
  type Values,
} from './fields.ts';
import type { FieldName } from './problem.ts';
import { openaiSampling } from './sampling.ts';

/** Of a route whose prompt is called `prompt`; sampling parameters stand in the body itself. */
export function fieldNames(prompt: string): FieldName {
  const flat = (name: string) => name.replace('sampling_params.', '').replace('_new_tokens', '_tokens');
  return (name) => (name === 'text' ? prompt : flat(name));
}

const streaming = { stream: boolean, stream_options: object({ include_usage: boolean }) };

/** What every request to OpenAI's routes may have. */
export const commonFields = { ...standing, model: string, rid: string };

export const openaiFields = { ...openaiSampling, ...streaming, ...commonFields, extra_key: string, lora_path: notYet };

/** One prompt or several, each as text or as token ids. */
export const texts = either(string, listOf(string, 'strings'), tokenIds, listOf(tokenIds, 'lists of token ids'));

export type Prompt = string | readonly number[];

export function promptsOf({ engine }: Call, given: ReturnType<typeof texts>, name: string): Prompt[] {
  const prompts = (typeof given === 'string' || typeof given[0] === 'number' ? [given] : given) as Prompt[];
  if (prompts.length === 0) throw new SglangError('bad_request', `${name}: the list is empty`, name);
  return prompts.map((prompt) => knownPrompt(engine.model, prompt, name));
}

/** Texts are known to every model, token ids to one that has them. */
export function knownPrompt({ vocabSize }: { vocabSize: number }, prompt: Prompt, name: string): Prompt {
  return typeof prompt === 'string' ? prompt : withinVocabulary(prompt, vocabSize, name);
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

type End = Pick<GenerateMeta, 'finishReason'> & { called?: boolean };

/** `matched_stop` is the stop string or token id, null where none ended the text; a call that was cut off is none. */
export function ending({ finishReason, called = false }: End) {
  const { type } = finishReason;
  if (called && type === 'stop') return { finish_reason: 'tool_calls', matched_stop: null };
  return { finish_reason: type, matched_stop: type === 'stop' ? finishReason.matched : null };
}

/** The same on the wire of a stream: null until the end, and no null `matched_stop`. */
export function streamedEnding(meta: End | undefined) {
  if (!meta) return { finish_reason: null };
  const { finish_reason, matched_stop } = ending(meta);
  return matched_stop === null ? { finish_reason } : { finish_reason, matched_stop };
}

export function secondsNow(): number {
  return Math.floor(Date.now() / 1000);
}

/**
 * The events of a stream: those that `show` makes of each piece, and at the end the usage where it was asked for. Each
 * prompt has a source of pieces, `index` tells which of its `n` samples; `choice` counts through all of all prompts.
 */
export async function* openaiEvents<P extends { index: number; meta?: Counts }>(
  sources: readonly AsyncIterable<P>[],
  { n = 1, stream_options }: Values<typeof streaming> & { n: number | undefined },
  frame: (choices: unknown[]) => object,
  show: (piece: P, choice: number, prompt: number) => unknown[],
): AsyncGenerator<object> {
  const metas: Counts[][] = sources.map(() => []);
  for await (const [prompt, piece] of merge(sources)) {
    if (piece.meta) metas[prompt]!.push(piece.meta);
    for (const choice of show(piece, prompt * n + piece.index, prompt)) yield frame([choice]);
  }
  if (stream_options?.include_usage) yield { ...frame([]), usage: usageOf(metas) };
}
