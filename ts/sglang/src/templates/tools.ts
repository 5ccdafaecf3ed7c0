/**
 * Tools of a chat: what may be called, and how a model writes calls. Law: a model is shown and asked for the
 * form that its own chat template uses; only where it has none, the generic form is explained in the system message.
 */
import { SglangError } from '../engine/errors.ts';
import type { ChatMessage, ModelCard } from '../engine/types.ts';

/** As OpenAI's API and chat templates know it. */
export interface Tool {
  type: 'function';
  function: { name: string; description?: string; parameters?: Record<string, unknown> };
}

/** What a request may call and must call. */
export interface Calls {
  readonly form: CallForm;
  /** As given, for the template. */
  readonly tools: readonly Tool[];
  /** Those that may be called, with their place in `tools`. */
  readonly callable: readonly { name: string; parameters: Record<string, unknown>; at: string }[];
  readonly required: boolean;
  readonly parallel: boolean;
}

/** How a model writes calls: `open`, then each as `begin` name `middle` arguments `end` with `between`, then `close`. */
export interface CallForm {
  /** Text by which a free answer turns to calls. */
  readonly announced: readonly string[];
  readonly open: string;
  readonly begin: string;
  readonly middle: string;
  readonly end: string;
  readonly between: string;
  readonly close: string;
}

const inTags: CallForm = {
  announced: ['<tool_call>'],
  open: '',
  begin: '<tool_call>\n{"name": "',
  middle: '", "arguments": ',
  end: '}\n</tool_call>',
  between: '\n',
  close: '',
};
const bare = { begin: '{"name": "', end: '}' };

export const forms = {
  hermes: inTags,
  mistral: { ...inTags, ...bare, announced: ['[TOOL_CALLS]'], open: '[TOOL_CALLS] [', between: ', ', close: ']' },
  llama3: {
    ...inTags,
    ...bare,
    announced: ['<|python_tag|>', '{"name": "'],
    middle: '", "parameters": ',
    between: '; ',
  },
  generic: { ...inTags },
};

/** The form that a model's template uses. */
export function formOf({ chatTemplate }: Pick<ModelCard, 'chatTemplate'>): CallForm {
  const template = chatTemplate ?? '';
  if (!/\btools\b/.test(template)) return forms.generic;
  if (template.includes('<tool_call>')) return forms.hermes;
  if (template.includes('[TOOL_CALLS]')) return forms.mistral;
  if (template.includes('<|start_header_id|>') || template.includes('<|python_tag|>')) return forms.llama3;
  return forms.hermes;
}

interface Asked {
  tools?: readonly Tool[];
  tool_choice?: 'auto' | 'none' | 'required' | { function: { name: string } };
  parallel_tool_calls?: boolean;
}

/** What `asked` allows; undefined where no tool can be called. */
export function callsOf(asked: Asked, model: Pick<ModelCard, 'chatTemplate'>): Calls | undefined {
  const { tools = [], tool_choice: choice = 'auto', parallel_tool_calls: parallel = true } = asked;
  if (tools.length === 0) {
    if (choice === 'auto' || choice === 'none') return undefined;
    throw new SglangError('bad_request', 'tool_choice: there are no tools to choose from', 'tool_choice');
  }
  if (choice === 'none') return undefined;
  const all = tools.map(({ function: { name, parameters = {} } }, i) => ({
    name,
    parameters: { type: 'object', ...parameters },
    at: `tools[${i}].function.parameters`,
  }));
  const only = typeof choice === 'object' ? choice.function.name : undefined;
  const callable = all.filter(({ name }) => only === undefined || name === only);
  if (callable.length === 0) {
    const known = all.map(({ name }) => name).join(', ');
    throw new SglangError('bad_request', `tool_choice: there is no tool "${only}"; given: ${known}`, 'tool_choice');
  }
  const required = choice !== 'auto';
  return { form: formOf(model), tools, callable, required, parallel: parallel && only === undefined };
}

/** Earlier calls and their answers as a model's template takes them. */
export function shownHistory(messages: readonly ChatMessage[], form: CallForm): readonly ChatMessage[] {
  return messages.map(form === forms.generic ? asPlainText : withParsedArguments);
}

/** A conversation in which a model is told of its tools, and the template's variables. */
export function shownTools(messages: readonly ChatMessage[], { form, tools }: Pick<Calls, 'form' | 'tools'>) {
  if (form !== forms.generic) return { messages, variables: { tools } };
  const system = messages[0]?.role === 'system' ? messages[0] : undefined;
  const rest = system ? messages.slice(1) : messages;
  return {
    messages: [{ role: 'system', content: withText(system?.content, explained(tools)) }, ...rest],
    variables: {},
  };
}

function withText(content: ChatMessage['content'] = '', text: string): ChatMessage['content'] {
  if (typeof content === 'string') return content === '' ? text : `${content}\n\n${text}`;
  return [...content, { type: 'text', text }];
}

/** Templates print arguments as JSON themselves. */
function withParsedArguments(message: ChatMessage): ChatMessage {
  if (!message.tool_calls) return message;
  const tool_calls = message.tool_calls.map((call) => ({
    ...call,
    function: { ...call.function, arguments: parsed(call.function.arguments) },
  }));
  return { ...message, tool_calls };
}

/** Typed as the text that it was; no text is no arguments, what is no JSON stays. */
function parsed(json: string): string {
  try {
    return JSON.parse(json || '{}') as string;
  } catch {
    return json;
  }
}

/** What a model is told that knows no tools by itself. */
export function explained(tools: readonly Tool[]): string {
  const list = tools.map(({ function: f }) => JSON.stringify(f)).join('\n');
  return (
    `You may call functions. They are, with the JSON Schema of their arguments:\n${list}\n` +
    `To call one, write its name and arguments in this form and nothing after it:\n${written('NAME', '{...}')}`
  );
}

/** A call in the generic form; `args` are JSON. */
export function written(name: string, args: string): string {
  const { begin, middle, end } = forms.generic;
  return begin + name + middle + args + end;
}

/** What a call gave, as a user says it. */
export function answered(text: string): string {
  return `<tool_response>\n${text}\n</tool_response>`;
}

function asPlainText(message: ChatMessage): ChatMessage {
  if (message.role === 'tool') return { role: 'user', content: answered(message.content as string) };
  if (!message.tool_calls) return message;
  const calls = message.tool_calls.map(({ function: f }) => written(f.name, f.arguments || '{}'));
  return { role: message.role, content: [message.content, ...calls].filter(Boolean).join('\n') };
}
