/** Sampling fields of the wire, native and OpenAI, and their translation to `SamplingParams`. Defaults are the engine's. */
import { SglangError } from '../engine/errors.ts';
import type { SamplingParams } from '../engine/types.ts';
import {
  boolean,
  either,
  integer,
  limit,
  listOf,
  notYet,
  nullMeans,
  number,
  object,
  oneOf,
  record,
  string,
  tokenIds,
} from './fields.ts';
import type { Check, Values } from './fields.ts';

const texts = either(string, listOf(string, 'strings'));
const schema = either(string, record);

/** Samples per prompt; OpenAI's own limit. */
const samples = integer(1, 128);

const shared = {
  stop: texts,
  stop_token_ids: tokenIds,
  temperature: number(0, Infinity),
  top_p: number(0, 1, { above: true }),
  top_k: integer(-1, limit),
  min_p: number(0, 1),
  frequency_penalty: number(-2, 2),
  presence_penalty: number(-2, 2),
  repetition_penalty: number(0, 2, { above: true }),
  n: samples,
  ignore_eos: boolean,
  skip_special_tokens: boolean,
  no_stop_trim: boolean,
  regex: string,
  json_schema: schema,
  ebnf: string,
  lark: string,
  structural_tag: schema,
  stop_regex: notYet,
  logit_bias: biases(),
};

/** `sampling_params` of `/generate`. */
const nativeFields = {
  ...shared,
  max_new_tokens: nullMeans(Infinity, integer(0, limit)),
  min_new_tokens: integer(0, limit),
  sampling_seed: integer(Number.MIN_SAFE_INTEGER),
  dtype: oneOf('int', 'str'),
};
export const nativeSampling = object(nativeFields);

const responseFormat = object({
  type: oneOf('text', 'json_object', 'json_schema'),
  json_schema: object({ schema: record }),
});

/** The sampling fields of both OpenAI endpoints, with SGLang's extras. */
export const openaiSampling = {
  ...shared,
  max_tokens: integer(0, limit),
  max_completion_tokens: integer(0, limit),
  min_tokens: integer(0, limit),
  temperature: number(0, 2),
  seed: integer(Number.MIN_SAFE_INTEGER),
  response_format: responseFormat,
};

type Native = Values<typeof nativeFields>;
type OpenAI = Values<typeof openaiSampling>;
type Shared = Values<typeof shared>;

export function fromNative(fields: Native, at: string): SamplingParams {
  const { max_new_tokens: maxNewTokens, min_new_tokens: minNewTokens, sampling_seed: seed } = fields;
  const params = { ...fromShared(fields, at), maxNewTokens, minNewTokens, seed };
  return fields.dtype === 'int' ? wholeNumber(params) : params;
}

export function fromOpenAI(fields: OpenAI): SamplingParams {
  const { max_tokens, max_completion_tokens: maxNewTokens = max_tokens, min_tokens: minNewTokens, seed } = fields;
  const json_schema = fields.json_schema ?? formatSchema(fields.response_format);
  return { ...fromShared({ ...fields, json_schema }, ''), maxNewTokens, minNewTokens, seed };
}

function fromShared(fields: Shared, at: string): SamplingParams {
  refuseTwoConstraints(fields, at);
  const { temperature, top_k, json_schema, structural_tag } = fields;
  return {
    ...(Object.fromEntries(sameNames.map(([ours, wire]) => [ours, fields[wire]])) as SamplingParams),
    temperature: greedyBelowLimit(temperature),
    topK: top_k === 0 ? -1 : top_k,
    jsonSchema: jsonText(json_schema, at, 'json_schema'),
    structuralTag: jsonText(structural_tag, at, 'structural_tag'),
  };
}

/** What both APIs have, by our names: those of the wire in camelCase. */
const sameNames = (Object.keys(shared) as (keyof Shared)[]).map(
  (wire) => [wire.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()), wire] as const,
);

/** The original calls anything below 1e-6 greedy. */
function greedyBelowLimit(temperature: number | undefined): number | undefined {
  return temperature !== undefined && temperature < 1e-6 ? 0 : temperature;
}

/** What old clients mean by `dtype: "int"`. */
function wholeNumber(params: SamplingParams): SamplingParams {
  const stop = typeof params.stop === 'string' ? [params.stop] : (params.stop ?? []);
  return { ...params, regex: params.regex ?? '[-+]?[0-9]+', stop: [...stop, ' ', '\n'] };
}

const constraints = ['regex', 'json_schema', 'ebnf', 'lark', 'structural_tag'] as const;

function refuseTwoConstraints(fields: Shared, at: string): void {
  const given = constraints.filter((name) => fields[name] !== undefined);
  if (given.length < 2) return;
  const message = `at most one of ${constraints.join(', ')} and response_format may be given, got ${given.join(' and ')}`;
  throw new SglangError('bad_request', message, at ? `${at}.${given[1]}` : given[1]);
}

function formatSchema(format: OpenAI['response_format']): Record<string, unknown> | undefined {
  if (format?.type === 'json_object') return { type: 'object' };
  if (format?.type !== 'json_schema') return undefined;
  if (format.json_schema?.schema) return format.json_schema.schema;
  const at = 'response_format.json_schema.schema';
  throw new SglangError('bad_request', `${at}: missing; expected an object`, at);
}

/** The native API has JSON within JSON; an object is taken as well. */
function jsonText(value: string | Record<string, unknown> | undefined, at: string, name: string): string | undefined {
  if (typeof value !== 'string') return value && JSON.stringify(value);
  try {
    JSON.parse(value);
    return value;
  } catch (error) {
    const field = at ? `${at}.${name}` : name;
    throw new SglangError('bad_request', `${field}: expected JSON text: ${(error as Error).message}`, field);
  }
}

/** Numbers in [-100, 100] by token id. */
function biases(): Check<Record<string, number>> {
  const expected = 'an object of numbers in [-100, 100] by token id';
  const bias = number(-100, 100);
  const check = (value: unknown, at: string) => {
    for (const [id, entry] of Object.entries(record(value, at))) {
      if (!/^\d{1,9}$/.test(id))
        throw new SglangError('bad_request', `${at}: expected ${expected}, got the key "${id}"`, at);
      bias(entry, `${at}.${id}`);
    }
    return value as Record<string, number>;
  };
  return Object.assign(check, { expected });
}
