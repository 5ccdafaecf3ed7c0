/**
 * Embeddings: the pooled states of prompts, which run among generations, without new tokens. Law: a prompt's embedding
 * depends on the prompt alone, bit for bit.
 */
import { SglangError } from './errors.ts';
import type { EmbedInput, Embedding, EmbedOptions, GenerateRequest, GenerateResult, ModelCard } from './types.ts';

const poolings: readonly unknown[] = ['last', 'mean'];

/** With nothing left open of what makes the vector. */
type Chosen = EmbedOptions & Required<Pick<EmbedOptions, 'pooling' | 'normalize'>>;

/** What a model's files say, where a caller does not. */
export function withDefaults(options: EmbedOptions, model: ModelCard): Chosen {
  const { pooling = model.pooling ?? 'last', normalize = model.normalize ?? true } = options;
  return { ...options, pooling, normalize };
}

/** The generation that computes the embedding of one input. */
export function embeddingRequest(input: EmbedInput, options: Chosen): GenerateRequest {
  const { pooling, signal, priority, cacheSalt } = options;
  if (!poolings.includes(pooling)) {
    throw new SglangError('bad_request', `pooling: expected "last" or "mean", got "${String(pooling)}"`, 'pooling');
  }
  const prompt = typeof input === 'string' ? { prompt: input } : { inputIds: input };
  return { ...prompt, pooling, samplingParams: { maxNewTokens: 0 }, signal, priority, cacheSalt };
}

export function embeddingOf({ embedding, meta }: GenerateResult, options: Chosen): Embedding {
  if (!embedding) throw new SglangError('bad_request', 'the request was aborted');
  const { promptTokens, cachedTokens } = meta;
  return { vector: shaped(embedding, options), promptTokens, cachedTokens };
}

/** The first `dimensions` values, then scaled to length 1, unless that is not wanted. */
function shaped(state: Float32Array, { dimensions = state.length, normalize }: Chosen): Float32Array {
  if (!Number.isInteger(dimensions) || dimensions < 1 || dimensions > state.length) {
    const message = `dimensions: the model's embeddings have ${state.length} values; expected 1 to ${state.length}, got ${dimensions}`;
    throw new SglangError('bad_request', message, 'dimensions');
  }
  const values = state.slice(0, dimensions);
  const length = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
  return normalize && length > 0 ? values.map((value) => value / length) : values;
}
