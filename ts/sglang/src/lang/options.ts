/** Names of options. Law: one that is misspelt is an error, since it would limit nothing. */
import { SglangError } from '../engine/errors.ts';
import { nearest } from './nearest.ts';
import type { GenOptions, RunOptions, SamplingOptions, SelectOptions } from './types.ts';

const sampling = {
  maxTokens: true,
  minTokens: true,
  temperature: true,
  topP: true,
  topK: true,
  minP: true,
  frequencyPenalty: true,
  presencePenalty: true,
  repetitionPenalty: true,
  stop: true,
  stopTokenIds: true,
  seed: true,
  ignoreEos: true,
  signal: true,
  logprobs: true,
} satisfies Record<keyof SamplingOptions, true>;

const select = { ...sampling, method: true } satisfies Record<keyof SelectOptions, true>;
const gen = {
  ...select,
  type: true,
  regex: true,
  schema: true,
  ebnf: true,
  lark: true,
  choices: true,
} satisfies Record<keyof (GenOptions & SelectOptions), true>;
const run = { ...sampling, backend: true, trace: true } satisfies Record<keyof RunOptions, true>;
const known = { select, gen, run };

/**
 * Throws where `options` has a name that options of this kind have not. `where` begins the message. What a run is given
 * may be an object with other purposes, too; there only names are wrong that look like one of ours.
 */
export function checkOptions(kind: keyof typeof known, where: string, options: object): void {
  const names = Object.keys(known[kind]);
  for (const wrong of Object.keys(options).filter((name) => !names.includes(name))) {
    const meant = nearest(wrong.replaceAll('_', ''), names);
    if (kind === 'run' && !meant) continue;
    const advice = meant ? `did you mean ${meant}?` : `there are: ${names.join(', ')}`;
    throw new SglangError('bad_request', `${where}: there is no option ${wrong}; ${advice}`, wrong);
  }
}
