/** An engine in this process as a backend. Law: only public verbs of the engine are used, so any `EngineLike` will do. */
import { tokenText } from '../engine/token-text.ts';
import type {
  EngineLike,
  GenerateResult,
  ImageInput,
  Logprobs,
  RequestStanding,
  TokenLogprob,
} from '../engine/types.ts';
import { chatTemplateOf, type ChatTemplate } from '../templates/chat-template.ts';
import type { RenderedPrompt } from '../templates/turns.ts';
import type { Backend, Delta, GenerateOptions, GenMeta } from './backend.ts';
import { genMeta, LocalBackend, samplingParams, type NamedLogprobs, type TextModel } from './local.ts';

/** The backend of `engine`; all its requests have the same standing. */
export function engineBackend(engine: EngineLike, standing: RequestStanding = {}): Backend {
  return new LocalBackend(new EngineModel(engine, standing));
}

class EngineModel implements TextModel {
  readonly kind = 'engine';
  readonly #engine: EngineLike;
  readonly #standing: RequestStanding;

  constructor(engine: EngineLike, standing: RequestStanding) {
    this.#engine = engine;
    this.#standing = standing;
  }

  async template(): Promise<ChatTemplate> {
    const { model } = this.#engine;
    const addsBos = model.bosTokenId !== null && this.#engine.tokenize('').includes(model.bosTokenId);
    return chatTemplateOf(addsBos ? { ...model, bosToken: '' } : model);
  }

  async *stream({ text, images }: RenderedPrompt, options: GenerateOptions): AsyncGenerator<Delta, void> {
    const { signal, returnLogprob, topLogprobsNum, tokenIdsLogprob } = options;
    const request = {
      ...this.#standing,
      prompt: text,
      samplingParams: samplingParams(options),
      signal,
      returnLogprob,
      topLogprobsNum,
      tokenIdsLogprob,
    };
    for await (const chunk of this.#engine.generate({ ...request, ...(images.length > 0 && { images }) })) {
      const { text, meta } = chunk;
      yield { text, ...(meta && { meta: genMeta({ ...meta, outputLogprobs: this.#named(meta.outputLogprobs) }) }) };
    }
  }

  async prefill({ text, images }: RenderedPrompt, signal?: AbortSignal): Promise<GenMeta> {
    const { meta } = await this.#compute({ prompt: text, images }, signal);
    return genMeta(meta);
  }

  score(
    texts: readonly string[],
    images: readonly ImageInput[],
    start: number,
    signal?: AbortSignal,
  ): Promise<TokenLogprob[][]> {
    return Promise.all(
      texts.map(async (prompt) => inputTokens(await this.#compute({ prompt, images }, signal, start))),
    );
  }

  scoreIds(lists: readonly (readonly number[])[], signal?: AbortSignal): Promise<TokenLogprob[][]> {
    return Promise.all(lists.map(async (inputIds) => inputTokens(await this.#compute({ inputIds }, signal, 0))));
  }

  flushCache(): Promise<number> {
    return this.#engine.flushCache();
  }

  #named(logprobs: Logprobs | undefined): NamedLogprobs | undefined {
    if (!logprobs) return undefined;
    const named = (token: TokenLogprob) => ({ ...token, text: tokenText(this.#engine, token.tokenId) });
    return { tokens: logprobs.tokens.map(named), top: logprobs.top.map((list) => list.map(named)) };
  }

  /** Runs a prompt without generating; from `start` on with log-probabilities. */
  async #compute(
    prompt: { prompt?: string; inputIds?: readonly number[]; images?: readonly ImageInput[] },
    signal: AbortSignal | undefined,
    start?: number,
  ): Promise<GenerateResult> {
    const { images = [], ...text } = prompt;
    const standing = this.#standing;
    const wanted = start === undefined ? {} : { returnLogprob: true, logprobStartLen: start };
    const pictures = images.length > 0 ? { images } : {};
    return this.#engine.generate({
      ...standing,
      ...text,
      ...pictures,
      ...wanted,
      samplingParams: { maxNewTokens: 0 },
      signal,
    });
  }
}

function inputTokens({ meta }: GenerateResult): TokenLogprob[] {
  return meta.inputLogprobs?.tokens ?? [];
}
