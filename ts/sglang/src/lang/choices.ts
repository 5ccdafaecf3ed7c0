/**
 * How one of several options is chosen. Law: an option is judged by the tokens it adds to the prompt and by no others,
 * and by their mean, so neither its length nor its neighbours matter.
 */
import type { SelectMethod } from '../backends/backend.ts';
import type { TokenLogprob } from '../engine/types.ts';
import { editDistance } from './nearest.ts';

/** Log-probabilities of the tokens of each option; a token that nothing predicts counts 0. */
export type OptionLogprobs = readonly (readonly number[])[];

/**
 * The tokens that `continued` has beyond `prompt`: what follows their longest common beginning. Where the last tokens
 * of the prompt merge with the first characters of the option (token healing), the merged token belongs to the option.
 */
export function addedTokens(
  prompt: readonly TokenLogprob[],
  continued: readonly TokenLogprob[],
): readonly TokenLogprob[] {
  const differs = continued.findIndex(({ tokenId }, i) => tokenId !== prompt[i]?.tokenId);
  return differs < 0 ? [] : continued.slice(differs);
}

/**
 * A score per option, larger is better. `unconditional` are the log-probabilities of the same tokens without the
 * prompt; only `unconditional_likelihood_normalized` needs them.
 */
export function scoresOf(method: SelectMethod, options: OptionLogprobs, unconditional: OptionLogprobs = []): number[] {
  if (method === 'greedy_token_selection') return greedy(options);
  if (method === 'token_length_normalized') return options.map(mean);
  return options.map((option, i) => mean(option) - mean(unconditional[i] ?? []));
}

/** Index of the largest score, the first of equals. */
export function best(scores: readonly number[]): number {
  return scores.reduce((top, score, i) => (score > scores[top]! ? i : top), 0);
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
}

/**
 * Position by position only the options with the most likely token stay; one that is over is judged by its mean. The
 * score is the number of positions survived, so the last to stay wins.
 */
function greedy(options: OptionLogprobs): number[] {
  const survived = options.map(() => 0);
  let left = options.map((_, i) => i);
  for (let at = 0; left.length > 1 && left.some((i) => at < options[i]!.length); at++) {
    const likely = left.map((i) => options[i]![at] ?? mean(options[i]!));
    const top = Math.max(...likely);
    left = left.filter((_, k) => likely[k] === top);
    for (const i of left) survived[i]!++;
  }
  return survived;
}

/**
 * Index of the option that a free answer means: the longest that it begins with, else the first one it mentions, else
 * the one whose spelling is nearest to its beginning.
 */
export function nearestChoice(answer: string, choices: readonly string[]): number {
  const said = plain(answer);
  const options = choices.map(plain);
  const begun = options.map((option) => (said.startsWith(option) ? option.length : 0));
  if (Math.max(...begun) > 0) return best(begun);
  const places = options.map((option) => said.indexOf(option));
  if (places.some((place) => place >= 0)) return best(places.map((place) => (place < 0 ? -Infinity : -place)));
  return best(
    options.map((option) => -editDistance(said.slice(0, option.length), option) / Math.max(option.length, 1)),
  );
}

function plain(text: string): string {
  return text.toLowerCase().replace(/^[\s"'`*]+|[\s"'`*.]+$/g, '');
}
