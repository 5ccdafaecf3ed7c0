/** `/generate`: the native API. One prompt or a list; fields given once hold for all prompts of a list, or are a list themselves. */
import { randomUUID } from 'node:crypto';
import { SglangError } from '../engine/errors.ts';
import type {
  EngineLike,
  FinishReason,
  GenerateMeta,
  GenerateRequest,
  GenerateResult,
  Logprobs,
} from '../engine/types.ts';
import { allResults, submit } from './calls.ts';
import type { Call, Route, Submission } from './calls.ts';
import { merge, streamEvents } from './event-stream.ts';
import {
  boolean,
  either,
  integer,
  limit,
  listOf,
  notYet,
  object,
  standing,
  standingOf,
  string,
  tokenIds,
  withinVocabulary,
} from './fields.ts';
import type { Check, Values } from './fields.ts';
import { strangersImages } from './images.ts';
import { concat, noLogprobs, triple } from './logprobs.ts';
import { fromNative, nativeSampling } from './sampling.ts';

const perPrompt = <T>(check: Check<T>, plural: string) => either(check, listOf(check, plural));

/** Most alternatives per position, as in the engine. */
const alternatives = integer(0, 128);

const fields = {
  text: perPrompt(string, 'strings'),
  input_ids: perPrompt(tokenIds, 'lists of token ids'),
  sampling_params: perPrompt(nativeSampling, 'objects'),
  return_logprob: perPrompt(boolean, 'booleans'),
  logprob_start_len: perPrompt(integer(-1, limit), 'whole numbers'),
  top_logprobs_num: perPrompt(alternatives, 'whole numbers'),
  token_ids_logprob: perPrompt(tokenIds, 'lists of token ids'),
  return_text_in_logprobs: boolean,
  stream: boolean,
  rid: perPrompt(string, 'strings'),
  ...standing,
  extra_key: string,
  image_data: either(string, listOf(either(string, listOf(string, 'strings')), 'strings, or a list for each prompt')),
  lora_path: notYet,
  return_hidden_states: notYet,
};

type Body = Values<typeof fields>;

export const nativeRoutes: readonly Route[] = [
  { methods: ['post'], paths: ['/generate'], takesBody: true, answer: generate },
];

async function generate(call: Call): Promise<void> {
  const body = object(fields)(call.body, '');
  const { requests, isList } = requestsOf(body, call.engine);
  const images = await imagesOf(body, call, isList, requests.length);
  const submissions = requests.map((request, i) =>
    submitOrSkip(call, { ...request, ...(images && { images: images[i]! }) }, pick(body.rid, i)),
  );
  if (body.stream) return streamEvents(call, events(call, body, submissions, isList));
  const results = await allResults(submissions);
  const shape = (samples: GenerateResult[], i: number) => {
    const style = styleOf(body, submissions[i]!);
    return samples.map((result) => wireResult(call.engine, style, result));
  };
  const all = results.flatMap(shape);
  call.res.json(isList || all.length !== 1 ? all : all[0]);
}

/** A field of one value holds for every prompt; of a list, each prompt has its own. */
function pick<T>(value: T | T[] | undefined, i: number): T | undefined {
  return Array.isArray(value) ? value[i] : value;
}

function pickIds(value: number[] | number[][] | undefined, i: number): number[] | undefined {
  return Array.isArray(value?.[0]) ? (value as number[][])[i] : (value as number[] | undefined);
}

function requestsOf(body: Body, engine: EngineLike): { requests: GenerateRequest[]; isList: boolean } {
  const { text, input_ids } = body;
  if ((text === undefined) === (input_ids === undefined)) {
    throw new SglangError('bad_request', 'expected exactly one of text and input_ids', 'text');
  }
  const isList = Array.isArray(text) || Array.isArray(input_ids?.[0]);
  const count = isList ? (text ?? input_ids)!.length : 1;
  refuseUnevenLists(body, isList, count);
  const request = (_: unknown, i: number) => requestOf(body, engine, i);
  return { requests: Array.from({ length: count }, request), isList };
}

const listable = ['sampling_params', 'return_logprob', 'logprob_start_len', 'top_logprobs_num', 'rid'] as const;

function refuseUnevenLists(body: Body, isList: boolean, count: number): void {
  if (count === 0) throw new SglangError('bad_request', 'text: the list is empty', 'text');
  const isNested = Array.isArray(body.token_ids_logprob?.[0]);
  for (const name of isNested ? [...listable, 'token_ids_logprob' as const] : listable) {
    const value: unknown = body[name];
    if (!Array.isArray(value) || (isList && value.length === count)) continue;
    const message = `${name}: expected one value or a list of ${count}, one per prompt, got a list of ${value.length}`;
    throw new SglangError('bad_request', message, name);
  }
}

function requestOf(body: Body, engine: EngineLike, i: number): GenerateRequest {
  const sampling = pick(body.sampling_params, i);
  const samplingParams = fromNative(sampling ?? nativeSampling({}, ''), 'sampling_params');
  const returnLogprob = pick(body.return_logprob, i);
  const ids = pickIds(body.input_ids, i);
  const onlyPrompt = samplingParams.maxNewTokens === 0 && returnLogprob;
  const start = pick(body.logprob_start_len, i);
  return {
    prompt: pick(body.text, i),
    inputIds: ids && withinVocabulary(ids, engine.model.vocabSize, 'input_ids'),
    samplingParams,
    returnLogprob,
    logprobStartLen: onlyPrompt && (start === undefined || start < 0) ? 0 : start,
    topLogprobsNum: pick(body.top_logprobs_num, i),
    tokenIdsLogprob: pickIds(body.token_ids_logprob, i),
    ...standingOf(body),
    extraKey: body.extra_key,
  };
}

/** The pictures of each prompt: one prompt has all that are named, of a list each has its own entry. */
async function imagesOf({ image_data }: Body, { engine, signal }: Call, isList: boolean, count: number) {
  if (image_data === undefined) return undefined;
  const entries = [image_data].flat();
  if (isList && entries.length !== count) {
    const message = `image_data: expected a list of ${count}, one entry per prompt, got ${entries.length}`;
    throw new SglangError('bad_request', message, 'image_data');
  }
  const named = isList ? entries.map((entry) => [entry].flat()) : [entries.flat()];
  return Promise.all(named.map((images) => strangersImages(images, engine, signal)));
}

/** Clients warm the cache before a fork even where the prompt is still empty; there is nothing to compute then. */
function submitOrSkip(call: Call, request: GenerateRequest, rid: string = randomUUID()): Submission {
  const asksNothing = request.prompt === '' && request.samplingParams?.maxNewTokens === 0 && !request.returnLogprob;
  if (!asksNothing) return submit(call, request, rid);
  const counts = { promptTokens: 0, completionTokens: 0, cachedTokens: 0, e2eLatency: 0 };
  const meta: GenerateMeta = { id: rid, finishReason: { type: 'length', length: 0 }, ...counts };
  const chunks = (async function* () {
    yield { index: 0, text: '', outputIds: [], meta };
  })();
  return { rid, request, chunks, results: () => Promise.resolve([{ text: '', outputIds: [], meta }]) };
}

function finishOf(reason: FinishReason) {
  return reason.type === 'abort' ? { ...reason, status_code: null } : reason;
}

/** What decides how a result looks on the wire, besides the result. */
interface Style {
  readonly rid: string;
  readonly request: GenerateRequest;
  readonly withText: boolean;
}

function styleOf(body: Body, { rid, request }: Submission): Style {
  return { rid, request, withText: body.return_text_in_logprobs ?? false };
}

function wireResult(engine: EngineLike, style: Style, { text, outputIds, meta }: GenerateResult) {
  return { text, output_ids: outputIds, meta_info: metaInfo(engine, style, meta) };
}

/** Log-probabilities that were asked for are there even where no position has one: clients read them unconditionally. */
function metaInfo(engine: EngineLike, style: Style, meta: GenerateMeta) {
  const { returnLogprob = false, logprobStartLen = -1 } = style.request;
  const input = meta.inputLogprobs ?? noLogprobs();
  return {
    id: style.rid,
    finish_reason: finishOf(meta.finishReason),
    prompt_tokens: meta.promptTokens,
    completion_tokens: meta.completionTokens,
    cached_tokens: meta.cachedTokens,
    discarded_tokens: meta.discardedTokens,
    e2e_latency: meta.e2eLatency,
    queue_time: meta.queueTime,
    ...(returnLogprob && logprobFields(engine, style, 'output', meta.outputLogprobs ?? noLogprobs())),
    ...(returnLogprob && logprobStartLen >= 0 && logprobFields(engine, style, 'input', input)),
    ...(returnLogprob && logprobStartLen >= 0 && { normalized_prompt_logprob: mean(input) }),
  };
}

function logprobFields(engine: EngineLike, { request, withText }: Style, side: 'input' | 'output', logprobs: Logprobs) {
  const wire = triple(engine, withText);
  const { topLogprobsNum = 0, tokenIdsLogprob } = request;
  return {
    [`${side}_token_logprobs`]: logprobs.tokens.map(wire),
    ...(topLogprobsNum > 0 && { [`${side}_top_logprobs`]: logprobs.top.map((list) => list.map(wire)) }),
    ...(tokenIdsLogprob && { [`${side}_token_ids_logprobs`]: logprobs.ofTokens.map((list) => list.map(wire)) }),
  };
}

function mean({ tokens }: Logprobs): number | null {
  const known = tokens.flatMap((token) => token.logprob ?? []);
  return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / known.length;
}

interface SoFar {
  text: string;
  outputIds: number[];
  logprobs: Logprobs;
}

/** The events of a stream: all text so far of one sample each, or with `streamOutput` its new text only. */
async function* events(call: Call, body: Body, submissions: readonly Submission[], isList: boolean) {
  const { engine } = call;
  const samples = submissions.map(() => new Map<number, SoFar>());
  const ns = submissions.map(({ request }) => request.samplingParams?.n ?? 1);
  let all = 0;
  const firsts = ns.map((n) => (all += n) - n);
  for await (const [i, chunk] of merge(submissions.map((submission) => submission.chunks))) {
    const { rid, request } = submissions[i]!;
    const before = samples[i]!.get(chunk.index) ?? { text: '', outputIds: [], logprobs: noLogprobs() };
    const now: SoFar = {
      text: before.text + chunk.text,
      outputIds: before.outputIds.concat(chunk.outputIds),
      logprobs: concat(before.logprobs, chunk.outputLogprobs),
    };
    samples[i]!.set(chunk.index, now);
    const told = call.options.streamOutput ? chunk : now;
    const style = styleOf(body, submissions[i]!);
    const { promptTokens: prompt_tokens, cachedTokens: cached_tokens } = chunk.admitted ?? {};
    const counts = { prompt_tokens, completion_tokens: now.outputIds.length, cached_tokens };
    const partial = { id: rid, finish_reason: null, ...counts };
    const logprobs = request.returnLogprob && logprobFields(engine, style, 'output', now.logprobs);
    yield {
      text: told.text,
      output_ids: told.outputIds,
      meta_info: chunk.meta ? metaInfo(engine, style, chunk.meta) : { ...partial, ...logprobs },
      ...((isList || ns[i]! > 1) && { index: firsts[i]! + chunk.index }),
    };
  }
}
