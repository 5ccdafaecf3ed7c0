/** Messages of a conversation as OpenAI clients send them; what the engine is given has one text per message. */
import { SglangError } from '../engine/errors.ts';
import type { ChatMessage } from '../engine/types.ts';
import { either, listOf, notYet, object, oneOf, string, needed } from './fields.ts';
import type { Check } from './fields.ts';

const part = object({ type: needed(oneOf('text', 'image_url')), text: string, image_url: notYet });

const message = object({
  role: needed(oneOf('system', 'developer', 'user', 'assistant')),
  content: needed(either(string, listOf(part, 'parts'))),
  tool_calls: notYet,
});

type Message = ReturnType<typeof message>;

const list = listOf(message, 'messages');

export const messageList: Check<Message[]> = Object.assign(
  (value: unknown, at: string) => {
    const messages = list(value, at);
    if (messages.length === 0) throw new SglangError('bad_request', `${at}: the list is empty`, at);
    return messages;
  },
  { expected: list.expected },
);

/** `developer` is the newer name of `system`; text parts are joined by a space, as the original does. */
export function toMessages(messages: readonly Message[]): ChatMessage[] {
  return messages.map(({ role, content }) => ({
    role: role === 'developer' ? 'system' : role,
    content: typeof content === 'string' ? content : content.map((entry) => entry.text ?? '').join(' '),
  }));
}
