/** The fields of a chat request about tools. */
import { SglangError } from '../engine/errors.ts';
import { boolean, either, listOf, needed, object, oneOf, record, string } from './fields.ts';
import type { Check } from './fields.ts';

const functionName: Check<string> = Object.assign(
  (value: unknown, at: string) => {
    if (typeof value === 'string' && /^[\w.-]{1,64}$/.test(value)) return value;
    throw new SglangError('bad_request', `${at}: expected ${functionName.expected}, got ${JSON.stringify(value)}`, at);
  },
  { expected: 'a name of letters, digits, "_", "-" and "."' },
);

const tool = object({
  type: needed(oneOf('function')),
  function: needed(object({ name: needed(functionName), description: string, parameters: record })),
});

const named = object({
  type: needed(oneOf('function')),
  function: needed(object({ name: needed(string) })),
});

export const toolFields = {
  tools: listOf(tool, 'tools'),
  tool_choice: either(oneOf('auto', 'none', 'required'), named),
  parallel_tool_calls: boolean,
};
