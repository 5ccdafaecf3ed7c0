/** `/tokenize` and `/detokenize`: text or messages to token ids and back. */
import { SglangError } from '../engine/errors.ts';
import type { Call, Route } from './calls.ts';
import { messageList, toMessages } from './chat-messages.ts';
import { boolean, either, listOf, needed, object, string, tokenIds, withinVocabulary } from './fields.ts';

const tokenizeBody = object({
  prompt: either(string, listOf(string, 'strings')),
  messages: messageList,
  add_special_tokens: boolean,
});

const detokenizeBody = object({
  tokens: needed(either(tokenIds, listOf(tokenIds, 'lists of token ids'))),
  skip_special_tokens: boolean,
});

export const tokenRoutes: readonly Route[] = [
  { methods: ['post'], paths: ['/tokenize', '/v1/tokenize'], takesBody: true, answer: tokenize },
  { methods: ['post'], paths: ['/detokenize', '/v1/detokenize'], takesBody: true, answer: detokenize },
];

function tokenize({ engine, body, res }: Call): void {
  const { prompt, messages, add_special_tokens: addSpecialTokens } = tokenizeBody(body, '');
  if ((prompt === undefined) === (messages === undefined)) {
    throw new SglangError('bad_request', 'expected exactly one of prompt and messages', 'prompt');
  }
  const rendered = messages && engine.applyChatTemplate(toMessages(messages), { addGenerationPrompt: true });
  const text = rendered ?? prompt!;
  const encode = (one: string) => engine.tokenize(one, { addSpecialTokens });
  const tokens = Array.isArray(text) ? text.map(encode) : encode(text);
  const count = Array.isArray(text) ? tokens.map((list) => (list as number[]).length) : tokens.length;
  res.json({ tokens, count, max_model_len: engine.model.contextLength });
}

function detokenize({ engine, body, res }: Call): void {
  const { tokens, skip_special_tokens: skipSpecialTokens } = detokenizeBody(body, '');
  const decode = (ids: number[]) =>
    engine.detokenize(withinVocabulary(ids, engine.model.vocabSize, 'tokens'), { skipSpecialTokens });
  const isList = Array.isArray(tokens[0]);
  res.json({ text: isList ? (tokens as number[][]).map(decode) : decode(tokens as number[]) });
}
