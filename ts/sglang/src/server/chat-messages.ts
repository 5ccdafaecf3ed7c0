/** Messages of a conversation as OpenAI clients send them; what the engine is given has one text per message. */
import { SglangError } from '../engine/errors.ts';
import type { ChatMessage } from '../engine/types.ts';
import { either, listOf, object, oneOf, string, needed } from './fields.ts';
import type { Check } from './fields.ts';

const partKind = object({ type: needed(oneOf('text', 'image_url')) });
const textPart = object({ type: needed(oneOf('text')), text: needed(string) });
const imagePart = object({ type: needed(oneOf('image_url')), image_url: needed(object({ url: needed(string) })) });

type Part = ReturnType<typeof textPart> | ReturnType<typeof imagePart>;

const part: Check<Part> = Object.assign(
  (value: unknown, at: string) => (partKind(value, at).type === 'text' ? textPart : imagePart)(value, at),
  { expected: 'a part' },
);

const content = either(string, listOf(part, 'parts'));

const toolCall = object({
  id: string,
  type: oneOf('function'),
  function: needed(object({ name: needed(string), arguments: needed(jsonText()) })),
});

const message = object({
  role: needed(oneOf('system', 'developer', 'user', 'assistant', 'tool')),
  content,
  tool_calls: listOf(toolCall, 'calls'),
  tool_call_id: string,
  name: string,
});

type Message = ReturnType<typeof message>;

const list = listOf(message, 'messages');

export const messageList: Check<Message[]> = Object.assign(
  (value: unknown, at: string) => {
    const messages = list(value, at);
    if (messages.length === 0) throw new SglangError('bad_request', `${at}: the list is empty`, at);
    const silent = messages.findIndex(({ content, tool_calls }) => content === undefined && !tool_calls);
    if (silent < 0) return messages;
    const place = `${at}[${silent}].content`;
    throw new SglangError('bad_request', `${place}: missing; expected ${content.expected}`, place);
  },
  { expected: list.expected },
);

/** Text and pictures in their order; parts of text alone are joined by a space, as the original does. */
function contentOf(parts: readonly Part[]): ChatMessage['content'] {
  const texts = parts.flatMap((part) => (part.type === 'text' ? part.text : []));
  return texts.length === parts.length ? texts.join(' ') : parts;
}

/** The pictures of a conversation, in order. */
export function imagesOf(messages: readonly ChatMessage[]): string[] {
  const parts = messages.flatMap(({ content }) => (typeof content === 'string' ? [] : content));
  return parts.flatMap((part) => (part.type === 'image_url' ? [part.image_url.url] : []));
}

/** `developer` is the newer name of `system`. */
export function toMessages(messages: readonly Message[]): ChatMessage[] {
  return messages.map(({ role, content = '', tool_calls, tool_call_id, name }) => ({
    role: role === 'developer' ? 'system' : role,
    content: typeof content === 'string' ? content : contentOf(content),
    ...(tool_calls && { tool_calls: tool_calls.map((call) => ({ ...call, type: 'function' as const })) }),
    ...(tool_call_id !== undefined && { tool_call_id }),
    ...(name !== undefined && { name }),
  }));
}

/** A string that is JSON, or empty: so some clients call a function without arguments. */
function jsonText(): Check<string> {
  const expected = 'JSON text';
  const check = (value: unknown, at: string) => {
    try {
      JSON.parse(string(value, at) || '{}');
      return value as string;
    } catch {
      throw new SglangError('bad_request', `${at}: expected ${expected}, got ${JSON.stringify(value)}`, at);
    }
  };
  return Object.assign(check, { expected });
}
