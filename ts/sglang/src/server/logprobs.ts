/** Log-probabilities in the three shapes of the wire: native triples, OpenAI completions, OpenAI chat. */
import { tokenText } from '../engine/token-text.ts';
import type { EngineLike, Logprobs, TokenLogprob } from '../engine/types.ts';

/** `[logprob, token id, text]`; the text where it was asked for. */
export type Triple = [logprob: number | null, tokenId: number, text: string | null];

export interface CompletionLogprobs {
  tokens: string[];
  token_logprobs: (number | null)[];
  top_logprobs: (Record<string, number> | null)[] | null;
  /** Where each token starts, in characters. */
  text_offset: number[];
}

export interface ChatTokenLogprob {
  token: string;
  logprob: number;
  bytes: number[];
}

export const noLogprobs = (): Logprobs => ({ tokens: [], top: [], ofTokens: [] });

export function concat(one: Logprobs, other: Logprobs | undefined): Logprobs {
  if (!other) return one;
  const [tokens, top] = [one.tokens.concat(other.tokens), one.top.concat(other.top)];
  return { tokens, top, ofTokens: one.ofTokens.concat(other.ofTokens) };
}

function textOf(engine: EngineLike, token: TokenLogprob): string {
  return tokenText(engine, token.tokenId);
}

export function triple(engine: EngineLike, withText: boolean): (token: TokenLogprob) => Triple {
  return (token) => [token.logprob, token.tokenId, withText ? textOf(engine, token) : null];
}

/** `offset` is where the first token starts in the whole text; `top` of 0 leaves the alternatives out. */
export function completionLogprobs(
  engine: EngineLike,
  logprobs: Logprobs,
  top: number,
  offset = 0,
): CompletionLogprobs {
  const tokens = logprobs.tokens.map((token) => textOf(engine, token));
  const starts = tokens.map((text) => (offset += text.length) - text.length);
  const byText = (entries: TokenLogprob[]) =>
    entries.length === 0
      ? null
      : Object.fromEntries(entries.map((entry) => [textOf(engine, entry), entry.logprob ?? 0]));
  return {
    tokens,
    token_logprobs: logprobs.tokens.map((token) => token.logprob),
    top_logprobs: top > 0 ? logprobs.tokens.map((_, i) => byText(logprobs.top[i] ?? [])) : null,
    text_offset: starts,
  };
}

export function chatLogprobs(engine: EngineLike, logprobs: Logprobs) {
  const entry = (token: TokenLogprob): ChatTokenLogprob => {
    const text = textOf(engine, token);
    return { token: text, logprob: token.logprob ?? 0, bytes: [...Buffer.from(text)] };
  };
  const position = (token: TokenLogprob, i: number) => ({
    ...entry(token),
    top_logprobs: (logprobs.top[i] ?? []).map(entry),
  });
  return { content: logprobs.tokens.map(position) };
}
