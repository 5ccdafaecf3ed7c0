/** Messages of a conversation as OpenAI clients send them; what the engine is given has one text per message. */
import { SglangError } from '../engine/errors.ts';
import type { ChatMessage } from '../engine/types.ts';
import { either, listOf, object, oneOf, string, needed } from './fields.ts';
import type { Check } from './fields.ts';

const image = object({ url: needed(string) });
const part = object({ type: needed(oneOf('text', 'image_url')), text: string, image_url: image });

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
function contentOf(parts: readonly ReturnType<typeof part>[], at: string): ChatMessage['content'] {
  if (parts.every(({ type }) => type === 'text')) return parts.map(({ text = '' }) => text).join(' ');
  return parts.map(({ type, text = '', image_url }) => {
    if (type === 'text') return { type, text };
    if (image_url) return { type, image_url };
    throw new SglangError('bad_request', `${at}: a part of type image_url needs image_url.url`, at);
  });
}

/** The pictures of a conversation, in order. */
export function imagesOf(messages: readonly ChatMessage[]): string[] {
  const parts = messages.flatMap(({ content }) => (typeof content === 'string' ? [] : content));
  return parts.flatMap((part) => (part.type === 'image_url' ? [part.image_url.url] : []));
}

/** `developer` is the newer name of `system`. */
export function toMessages(messages: readonly Message[]): ChatMessage[] {
  return messages.map(({ role, content = '', tool_calls, tool_call_id, name }, i) => ({
    role: role === 'developer' ? 'system' : role,
    content: typeof content === 'string' ? content : contentOf(content, `messages[${i}].content`),
    ...(tool_calls && { tool_calls: tool_calls.map((call) => ({ ...call, type: 'function' as const })) }),
    ...(tool_call_id !== undefined && { tool_call_id }),
    ...(name !== undefined && { name }),
  }));
}

/** A string that is JSON. */
function jsonText(): Check<string> {
  const expected = 'JSON text';
  const check = (value: unknown, at: string) => {
    try {
      JSON.parse(string(value, at));
      return value as string;
    } catch {
      throw new SglangError('bad_request', `${at}: expected ${expected}, got ${JSON.stringify(value)}`, at);
    }
  };
  return Object.assign(check, { expected });
}
