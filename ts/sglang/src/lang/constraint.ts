/**
 * What `gen` may be asked to produce besides plain text. Law: a constraint says the same thing twice, as a grammar for
 * the backend and as a parser of its text, so a value is checked even where the backend has no grammar.
 */
import type { StandardJSONSchemaV1, StandardSchemaV1 } from '@standard-schema/spec';
import type { GenerateOptions } from '../backends/backend.ts';
import { SglangError } from '../engine/errors.ts';
import { closedSchema } from './closed-schema.ts';
import { regexSource } from './regex.ts';
import type { GenOptions, ValueTypes } from './types.ts';

export interface Constraint {
  /** For the backend; `stop` is added to the caller's. */
  readonly grammar: Pick<GenerateOptions, 'regex' | 'jsonSchema' | 'ebnf' | 'lark' | 'valueType' | 'stop'>;
  /** The variable's value. Throws where the text does not fit. */
  parse(text: string): unknown;
}

type ValueRule = { regex: string; stop: readonly string[]; parse: (text: string) => unknown };

/** At most 15 digits, so that an integer is exact. The white space lets a model end a number, and is cut by `stop`. */
const numberEnd = { tail: '[ \\n]?', stop: [' ', '\n'] };
const valueRules: Record<keyof ValueTypes, ValueRule> = {
  int: { regex: `[-+]?[0-9]{1,15}${numberEnd.tail}`, stop: numberEnd.stop, parse: numberIn(/^[-+]?\d+$/) },
  float: {
    regex: `[-+]?[0-9]{1,15}(\\.[0-9]{1,15})?${numberEnd.tail}`,
    stop: numberEnd.stop,
    parse: numberIn(/^[-+]?\d+(\.\d*)?(e[-+]?\d+)?$/i),
  },
  bool: {
    regex: '[Tt]rue|[Ff]alse',
    stop: [],
    parse: (text) => matched(/^(true|false)$/i, text).toLowerCase() === 'true',
  },
  string: { regex: '"[^"\\\\\\n]*"', stop: [], parse: (text) => matched(/^"[^"\\\n]*"$/, text).slice(1, -1) },
};

/** The constraint that `options` ask for. Throws where they ask for several. */
export function constraintOf(name: string, options: GenOptions): Constraint {
  const { type, regex, schema, ebnf, lark } = options;
  const given = Object.entries({ type, regex, schema, ebnf, lark }).filter(([, value]) => value !== undefined);
  if (given.length > 1) {
    const names = given.map(([key]) => key).join(' and ');
    throw new SglangError('bad_request', `gen("${name}"): ${names} exclude each other; give one`, names);
  }
  if (type !== undefined) return ofType(name, type);
  if (regex !== undefined) return { grammar: { regex: regexSource(regex) }, parse: String };
  if (schema !== undefined) return ofSchema(name, schema);
  if (lark?.includes('::=')) {
    throw new SglangError('bad_request', `gen("${name}"): lark: "::=" is EBNF's; write rules as "start: …"`, 'lark');
  }
  return { grammar: { ...(ebnf !== undefined && { ebnf }), ...(lark !== undefined && { lark }) }, parse: String };
}

function ofType(name: string, type: keyof ValueTypes): Constraint {
  const rule = valueRules[type];
  if (!rule) {
    const known = Object.keys(valueRules).join(', ');
    throw new SglangError('bad_request', `gen("${name}"): unknown type "${type}"; known: ${known}`, 'type');
  }
  return { grammar: { regex: rule.regex, stop: rule.stop, valueType: type }, parse: rule.parse };
}

function numberIn(shape: RegExp): (text: string) => number {
  return (text) => Number(matched(shape, text));
}

function matched(shape: RegExp, text: string): string {
  if (shape.test(text.trim())) return text.trim();
  throw new Error(`the text ${JSON.stringify(text)} does not match ${shape}`);
}

function ofSchema(name: string, schema: StandardSchemaV1): Constraint {
  const jsonSchema = jsonSchemaOf(name, schema);
  return {
    grammar: jsonSchema === undefined ? {} : { jsonSchema },
    parse: async (text) => validated(schema, jsonIn(text)),
  };
}

function jsonIn(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(
      `the text is not JSON (${(error as Error).message}); was it cut off at maxTokens? ${JSON.stringify(text)}`,
    );
  }
}

async function validated(schema: StandardSchemaV1, value: unknown): Promise<unknown> {
  const result = await schema['~standard'].validate(value);
  if (!result.issues) return result.value;
  const issues = result.issues.map(({ message, path = [] }) => {
    const keys = path.map((segment) => String(typeof segment === 'object' ? segment.key : segment));
    return keys.length > 0 ? `at ${keys.join('.')}: ${message}` : message;
  });
  throw new Error(`the value does not fit the schema: ${issues.join('; ')}`);
}

/** The model writes what the schema takes in; what it gives out is made by `validate`. */
function jsonSchemaOf(name: string, schema: StandardSchemaV1): string | undefined {
  const { jsonSchema: offered } = schema['~standard'] as Partial<StandardJSONSchemaV1.Props>;
  if (!offered) return undefined;
  try {
    return JSON.stringify(closedSchema(offered.input({ target: 'draft-2020-12' })));
  } catch (error) {
    throw new SglangError('unsupported', `gen("${name}"): schema: ${(error as Error).message}`, 'schema');
  }
}
