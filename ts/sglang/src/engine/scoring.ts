/**
 * Scores of items under a query: how likely each of a few tokens is to come next. The query comes first, so that all
 * items share what the cache knows of it. Law: a score is the exponential of the token's log-probability after the text.
 */
import { SglangError } from './errors.ts';
import type { GenerateRequest, GenerateResult, ScoreRequest } from './types.ts';

/** One generation per item: its only token is not looked at, only what was likely in its place. */
export function scoringRequests(asked: ScoreRequest): GenerateRequest[] {
  const { labelTokenIds, priority, cacheSalt, signal } = asked;
  if (labelTokenIds.length === 0) {
    throw new SglangError('bad_request', 'label_token_ids: expected at least one token id', 'label_token_ids');
  }
  return asked.items.map((item) => ({
    ...joined(asked, item),
    samplingParams: { maxNewTokens: 1, temperature: 0 },
    returnLogprob: true,
    tokenIdsLogprob: labelTokenIds,
    ...{ priority, cacheSalt, signal },
  }));
}

function joined({ query, itemFirst }: ScoreRequest, item: ScoreRequest['query']) {
  if (typeof query === 'string' && typeof item === 'string') return { prompt: itemFirst ? item + query : query + item };
  if (typeof query === 'string' || typeof item === 'string') {
    throw new SglangError('bad_request', 'items: query and items must be all text or all token ids', 'items');
  }
  return { inputIds: itemFirst ? [...item, ...query] : [...query, ...item] };
}

/** Per label, in the order of `labelTokenIds`: its probability, or its share among the labels alone. */
export function scoresOf({ meta }: GenerateResult, { applySoftmax = false }: ScoreRequest): number[] {
  const labels = meta.outputLogprobs?.ofTokens[0];
  if (!labels) throw new SglangError('bad_request', 'the request was aborted');
  const logprobs = labels.map(({ logprob }) => logprob ?? -Infinity);
  if (!applySoftmax) return logprobs.map(Math.exp);
  const largest = Math.max(...logprobs);
  const shares = logprobs.map((logprob) => Math.exp(logprob - largest));
  const sum = shares.reduce((total, share) => total + share);
  return shares.map((share) => share / sum);
}
