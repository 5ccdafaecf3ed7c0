/**
 * What an API has no field for. Law: nothing that a program asked for is dropped in silence. A constraint that cannot
 * be asked for is always an error, since the program relies on it; a sampling option is one unless the user said that
 * such may be left out.
 */
import { SglangError } from '../engine/errors.ts';
import { shown } from '../lang/options.ts';
import type { GenerateOptions, SelectMethod } from './backend.ts';

export interface UnsupportedOptions {
  /** Leave out sampling options that the API does not have, in place of an error. Default false. */
  ignoreUnsupported?: boolean;
}

/** The name of a model, which comes first. */
export function modelName(model: unknown, api: string): string {
  if (typeof model === 'string' && model !== '') return model;
  throw new TypeError(`new ${api}(model, options): expected the name of a model, got ${shown(model)}`);
}

/** The number of tokens for an API that wants one. */
export function finite(api: string, maxTokens: number): number {
  if (maxTokens !== Infinity) return maxTokens;
  throw new SglangError('unsupported', `${api} needs a limit: maxTokens cannot be Infinity`, 'maxTokens');
}

/** What changes nothing. */
const neutral = {
  minTokens: 0,
  temperature: undefined,
  topP: 1,
  topK: -1,
  minP: 0,
  frequencyPenalty: 0,
  presencePenalty: 0,
  repetitionPenalty: 1,
  logitBias: undefined,
  stop: undefined,
  stopTokenIds: undefined,
  seed: undefined,
  ignoreEos: false,
  returnLogprob: false,
} as const;
const constraints = ['regex', 'jsonSchema', 'ebnf', 'lark'] as const;

const LEAVE_OUT = 'leave it out, or create the backend with { ignoreUnsupported: true }';

type Name = keyof typeof neutral | (typeof constraints)[number];

/** As the language calls them. */
const spoken: Partial<Record<Name, string>> = { jsonSchema: 'schema', returnLogprob: 'logprobs' };

/** Throws where `options` ask for what is not among `supported`; `instead` is what to do about it. */
export function refuseUnsupported(
  api: string,
  options: GenerateOptions,
  supported: readonly Name[],
  { ignoreUnsupported = false }: UnsupportedOptions,
  instead: string,
): void {
  const asked = (name: Name) => {
    const value = options[name];
    if (value === undefined || supported.includes(name)) return false;
    return !(Array.isArray(value) && value.length === 0) && value !== neutral[name as keyof typeof neutral];
  };
  const sampling = ignoreUnsupported ? [] : (Object.keys(neutral) as Name[]);
  const refused = [...constraints, ...sampling].find(asked);
  if (!refused) return;
  const name = spoken[refused] ?? refused;
  const isConstraint = constraints.some((constraint) => constraint === refused);
  const advice = isConstraint ? instead : LEAVE_OUT;
  throw new SglangError('unsupported', `${api} has no option ${name}; ${advice}`, name);
}

/** Throws where choices are to be compared by `method`: an API is asked to choose, and tells no scores. */
export function refuseMethod(
  api: string,
  method: SelectMethod | undefined,
  { ignoreUnsupported = false }: UnsupportedOptions,
): void {
  if (method === undefined || ignoreUnsupported) return;
  throw new SglangError('unsupported', `${api} cannot select by ${method}; ${LEAVE_OUT}`, 'method');
}
