/**
 * What backends share that speak to a model in text: turns become one text, and options are compared by the
 * log-probabilities of the tokens they add. Law: a model is only asked to continue texts and to score them.
 */
import { addedTokens, best, scoresOf } from '../lang/choices.ts';
import { SglangError } from '../engine/errors.ts';
import type { GenerateMeta, ImageInput, SamplingParams, TokenLogprob } from '../engine/types.ts';
import type { ChatTemplate } from '../templates/chat-template.ts';
import { noPieces, renderTurns, rolePieces, type RenderedPrompt } from '../templates/turns.ts';
import type {
  Backend,
  Delta,
  GenerateOptions,
  GenMeta,
  OutputLogprob,
  Selection,
  SelectOptions,
  Turn,
} from './backend.ts';

/** A model behind a server or in this process. */
export interface TextModel {
  readonly kind: string;
  /** Without BOS where the model's tokenizer puts it before every text. */
  template(): Promise<ChatTemplate>;
  stream(prompt: RenderedPrompt, options: GenerateOptions): AsyncIterable<Delta>;
  /** Computes the prompt, which is then cached. */
  prefill(prompt: RenderedPrompt, signal?: AbortSignal): Promise<GenMeta>;
  /** For each text its tokens from position `start` on; all have the same `images`. */
  score(
    texts: readonly string[],
    images: readonly ImageInput[],
    start: number,
    signal?: AbortSignal,
  ): Promise<TokenLogprob[][]>;
  /** For each list of token ids, with nothing before it. */
  scoreIds(lists: readonly (readonly number[])[], signal?: AbortSignal): Promise<TokenLogprob[][]>;
  flushCache(): Promise<unknown>;
}

/** How many of a prompt's last tokens may merge differently when an option follows. */
const HEALING_WINDOW = 8;

/** The backend of a model. */
export class LocalBackend implements Backend {
  readonly kind: string;
  readonly #model: TextModel;

  constructor(model: TextModel) {
    this.kind = model.kind;
    this.#model = model;
  }

  async *stream(turns: readonly Turn[], options: GenerateOptions): AsyncGenerator<Delta, void> {
    yield* this.#model.stream(await this.#rendered(turns), options);
  }

  async select(turns: readonly Turn[], choices: readonly string[], options: SelectOptions): Promise<Selection> {
    return selection(this.#model, await this.#rendered(turns), choices, options);
  }

  async warm(turns: readonly Turn[], { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#model.prefill(await this.#rendered(turns), signal);
  }

  async render(turns: readonly Turn[]): Promise<string> {
    return (await this.#rendered(turns)).text;
  }

  async flushCache(): Promise<void> {
    await this.#model.flushCache();
  }

  async #rendered(turns: readonly Turn[]): Promise<RenderedPrompt> {
    const hasRoles = turns.some(({ role }) => role !== null);
    return renderTurns(turns, hasRoles ? rolePieces(await this.#model.template()) : noPieces);
  }
}

/** Scores `prompt + choice` for each choice, and the prompt, to tell the tokens that a choice adds. */
async function selection(
  model: TextModel,
  { text, images }: RenderedPrompt,
  choices: readonly string[],
  { method = 'token_length_normalized', signal }: SelectOptions,
): Promise<Selection> {
  const meta = text === '' ? emptyPromptMeta : await model.prefill({ text, images }, signal);
  const start = Math.max(meta.promptTokens - HEALING_WINDOW, 0);
  const texts = choices.map((choice) => text + choice);
  const all = await model.score(text === '' ? texts : [text, ...texts], images, start, signal);
  const tail = text === '' ? [] : all.shift()!;
  const added = all.map((tokens, i) => notNone(addedTokens(tail, tokens), choices[i]!));
  const unconditional =
    method === 'unconditional_likelihood_normalized'
      ? await model.scoreIds(
          added.map((tokens) => tokens.map(({ tokenId }) => tokenId)),
          signal,
        )
      : [];
  const scores = scoresOf(method, added.map(values), unconditional.map(values));
  return { index: best(scores), scores, meta: { ...meta, finishReason: 'stop', matched: null } };
}

const emptyPromptMeta: GenMeta = {
  promptTokens: 0,
  completionTokens: 0,
  cachedTokens: 0,
  finishReason: 'stop',
  matched: null,
};

function values(tokens: readonly TokenLogprob[]): number[] {
  return tokens.map(({ logprob }) => logprob ?? 0);
}

function notNone(tokens: readonly TokenLogprob[], choice: string): readonly TokenLogprob[] {
  if (tokens.length > 0) return tokens;
  throw new SglangError(
    'unsupported',
    `the model has no tokens of its own for the choice ${JSON.stringify(choice)}`,
    'choices',
  );
}

/** The part of the options that says how to sample, in the engine's names. */
export function samplingParams(options: GenerateOptions): SamplingParams {
  const { maxTokens: maxNewTokens, minTokens: minNewTokens, ...rest } = options;
  const {
    signal: _s,
    whole: _w,
    valueType: _v,
    returnLogprob: _r,
    logprobStartLen: _l,
    topLogprobsNum: _t,
    tokenIdsLogprob: _i,
    ...same
  } = rest;
  return { ...same, maxNewTokens, minNewTokens };
}

type FinishedMeta = Pick<GenerateMeta, 'finishReason' | 'promptTokens' | 'completionTokens' | 'cachedTokens'> & {
  outputLogprobs?: NamedLogprobs;
};
/** Generated tokens, and the alternatives of each. */
export interface NamedLogprobs {
  readonly tokens: readonly OutputLogprob[];
  readonly top: readonly OutputLogprob[][];
}

/** What the language wants to know of a finished generation. Throws where it was aborted. */
export function genMeta(meta: FinishedMeta): GenMeta {
  const { finishReason, promptTokens, completionTokens, cachedTokens, outputLogprobs } = meta;
  if (finishReason.type === 'abort')
    throw new SglangError('engine_closed', `the generation was aborted: ${finishReason.message}`);
  return {
    promptTokens,
    completionTokens,
    cachedTokens,
    finishReason: finishReason.type,
    matched: finishReason.type === 'stop' ? finishReason.matched : null,
    ...(outputLogprobs && { outputLogprobs: withAlternatives(outputLogprobs) }),
  };
}

function withAlternatives({ tokens, top }: NamedLogprobs): OutputLogprob[] {
  return tokens.map((token, i) => ({ ...token, ...(top[i]?.length && { top: top[i] }) }));
}
