/** OpenAI's wire, as far as it is spoken: pieces of streams, log-probabilities, formats. */
import type { GenerateOptions, GenMeta, OutputLogprob } from './backend.ts';
import { wireNames } from './wire-names.ts';

/** What is read of a streamed piece, of chat and of plain completions. */
export interface Piece {
  choices?: {
    delta?: { content?: string | null; refusal?: string | null };
    text?: string;
    finish_reason?: string | null;
    matched_stop?: string | number | null;
    logprobs?: ChatLogprobs | CompletionLogprobs | null;
  }[];
  usage?: Usage | null;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  prompt_tokens_details?: { cached_tokens?: number } | null;
}

/** A whole answer that called a tool with free text. */
export interface ToolAnswer {
  choices: { message: { tool_calls?: { custom?: { input: string } }[] }; finish_reason: string }[];
  usage: Usage;
}

interface ChatToken {
  token: string;
  logprob: number;
  top_logprobs?: ChatToken[];
}
interface ChatLogprobs {
  content: ChatToken[] | null;
}
interface CompletionLogprobs {
  tokens: string[];
  token_logprobs: (number | null)[];
  top_logprobs?: (Record<string, number> | null)[] | null;
}

export function countsOf(usage: Usage): Pick<GenMeta, 'promptTokens' | 'completionTokens' | 'cachedTokens'> {
  const { prompt_tokens, completion_tokens, prompt_tokens_details } = usage;
  const cachedTokens = prompt_tokens_details?.cached_tokens ?? 0;
  return { promptTokens: prompt_tokens, completionTokens: completion_tokens, cachedTokens };
}

export function endOf(
  finish: string | null | undefined,
  matched?: string | number | null,
): Pick<GenMeta, 'finishReason' | 'matched'> {
  return { finishReason: finish === 'length' ? 'length' : 'stop', matched: matched ?? null };
}

export function logprobsOf(wire: ChatLogprobs | CompletionLogprobs): OutputLogprob[] {
  if ('content' in wire)
    return (wire.content ?? []).map(({ top_logprobs = [], ...token }) => ({
      ...chatToken(token),
      ...(top_logprobs.length > 0 && { top: top_logprobs.map(chatToken) }),
    }));
  return wire.tokens.map((text, i) => {
    const top = Object.entries(wire.top_logprobs?.[i] ?? {}).map(([text, logprob]) => ({ text, logprob }));
    return { text, logprob: wire.token_logprobs[i] ?? null, ...(top.length > 0 && { top }) };
  });
}

function chatToken({ token, logprob }: ChatToken): OutputLogprob {
  return { text: token, logprob };
}

/** Fields that servers such as this project's understand, under the names of SGLang. */
export function extensionFields(options: GenerateOptions): object {
  const { topK, minP, repetitionPenalty, minTokens, ignoreEos, stopTokenIds, regex, ebnf, lark } = options;
  return wireNames({ topK, minP, repetitionPenalty, minTokens, ignoreEos, stopTokenIds, regex, ebnf, lark });
}

export function schemaFormat(schema: object): object {
  return { type: 'json_schema', json_schema: { name: 'output', schema, strict: true } };
}

/** Fields that make the model call a tool whose input is a text of the grammar. */
export function grammarTool(syntax: 'regex' | 'lark', definition: string): object {
  const name = 'write';
  const format = { type: 'grammar', grammar: { syntax, definition } };
  const tool = { type: 'custom', custom: { name, description: 'Takes the answer, and nothing else.', format } };
  return { tools: [tool], tool_choice: { type: 'custom', custom: { name } } };
}
