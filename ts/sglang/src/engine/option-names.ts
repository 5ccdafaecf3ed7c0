/** Names of what the engine is given, also by programs in JavaScript. Law: a misspelt one is an error: it would change nothing. */
import { noOption } from '../lang/nearest.ts';
import type { EngineOptions } from './engine.ts';
import type { EmbedOptions, GenerateRequest, RequestStanding, SamplingParams, ScoreRequest } from './types.ts';

type Names<T> = Readonly<Record<keyof T, true>>;

const standing: Names<RequestStanding> = { priority: true, cacheSalt: true };
const create: Names<EngineOptions> = {
  ...{ modelPath: true, revision: true, mmproj: true, tokenizerPath: true, chatTemplate: true },
  ...{ device: true, dtype: true, quantization: true, kvCacheDtype: true, tp: true, threads: true },
  ...{ contextLength: true, maxTotalTokens: true, maxRunningRequests: true, maxQueuedRequests: true },
  ...{ chunkedPrefillSize: true, schedulePolicy: true, disableRadixCache: true, randomSeed: true },
  ...{ onProgress: true, signal: true },
};
const samplingParams: Names<SamplingParams> = {
  ...{ maxNewTokens: true, minNewTokens: true, stop: true, stopTokenIds: true, ignoreEos: true, n: true, seed: true },
  ...{ temperature: true, topP: true, topK: true, minP: true, logitBias: true },
  ...{ frequencyPenalty: true, presencePenalty: true, repetitionPenalty: true },
  ...{ regex: true, jsonSchema: true, ebnf: true, lark: true, structuralTag: true },
  ...{ skipSpecialTokens: true, noStopTrim: true },
};
const generate: Names<GenerateRequest> = {
  ...standing,
  ...{ prompt: true, messages: true, inputIds: true, images: true, samplingParams: true, pooling: true, signal: true },
  ...{ returnLogprob: true, logprobStartLen: true, topLogprobsNum: true, tokenIdsLogprob: true },
  ...{ extraKey: true, chatTemplateOptions: true, continueFinalMessage: true },
};
const embed: Names<EmbedOptions> = { ...standing, pooling: true, normalize: true, dimensions: true, signal: true };
const score: Names<ScoreRequest> = {
  ...{ ...standing, query: true, items: true, labelTokenIds: true, applySoftmax: true, itemFirst: true, signal: true },
};

/** By where they are given. */
const known = { 'Engine.create': create, generate, samplingParams, embed, score } as const;

/** Throws where `given` has a name that there is none of. */
export function checkNames(where: keyof typeof known, given: object = {}): void {
  const names = known[where];
  for (const [name, value] of Object.entries(given)) {
    if (value !== undefined && !Object.hasOwn(names, name)) throw noOption(where, name, Object.keys(names));
  }
}
