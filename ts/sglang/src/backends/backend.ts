/**
 * The seam between programs and whatever generates text. A backend sees a prompt as turns of a conversation and
 * answers with a stream of text; everything else (variables, forks, order) is the interpreter's.
 */
import type { Drawing, FinishReason, ImageInput, LogprobOptions, SamplingParams } from '../engine/types.ts';

export type Role = 'system' | 'user' | 'assistant' | 'tool';

export type Content = string | { readonly image: ImageInput };

/**
 * A turn of the prompt. `role` null is plain text outside any role. Only the last turn may be open: the text that is
 * generated continues it.
 */
export interface Turn {
  readonly role: Role | null;
  readonly content: readonly Content[];
  readonly open: boolean;
}

type Engines = Drawing & Pick<SamplingParams, 'logitBias' | 'regex' | 'jsonSchema' | 'ebnf' | 'lark'>;

export interface GenerateOptions extends Engines, LogprobOptions {
  maxTokens?: number;
  minTokens?: number;
  stop?: readonly string[];
  /** What `regex` describes, for backends that have no regex but can ask for such a value by other means. */
  valueType?: 'int' | 'float' | 'bool' | 'string';
  signal?: AbortSignal;
  /** Nobody follows the text while it comes: it may be given in one piece. */
  whole?: boolean;
}

/** A generated token with its text; servers and engines tell its id, too. */
export interface OutputLogprob {
  logprob: number | null;
  tokenId?: number;
  text?: string;
  /** The most likely tokens in its place, in descending order, where they were asked for. */
  top?: OutputLogprob[];
}

export interface GenMeta {
  promptTokens: number;
  completionTokens: number;
  cachedTokens: number;
  finishReason: FinishReason['type'];
  /** What ended it: a stop string, a token id, or null. */
  matched: string | number | null;
  outputLogprobs?: OutputLogprob[];
  /** An earlier call had generated it ahead: no call was made for it, and no tokens were spent. */
  speculated?: true;
}

/** A piece of generated text; the last one carries `meta`. */
export interface Delta {
  text: string;
  meta?: GenMeta;
}

export type SelectMethod = 'token_length_normalized' | 'greedy_token_selection' | 'unconditional_likelihood_normalized';

export interface SelectOptions {
  method?: SelectMethod;
  temperature?: number;
  signal?: AbortSignal;
}

export interface Selection {
  /** Index of the chosen option. */
  index: number;
  /** A score per option, larger is better, where the backend has them. */
  scores: number[] | null;
  meta: GenMeta;
}

export interface Backend {
  readonly kind: string;
  /** Continues the prompt. The last turn is open, or `role: null`. */
  stream(prompt: readonly Turn[], options: GenerateOptions): AsyncIterable<Delta>;
  /** Chooses one of `choices` as the continuation of the prompt. */
  select(prompt: readonly Turn[], choices: readonly string[], options: SelectOptions): Promise<Selection>;
  /** Computes the prompt ahead of branches that will share it; optional. */
  warm?(prompt: readonly Turn[], options: { signal?: AbortSignal }): Promise<void>;
  /** Drops cached prefixes; optional. */
  flushCache?(): Promise<unknown>;
  /** The whole prompt as the model sees it, where the backend renders text; optional. */
  render?(prompt: readonly Turn[]): Promise<string>;
}
