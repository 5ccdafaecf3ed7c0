/** `/v1/embeddings`: vectors of texts, in OpenAI's shape. */
import { embeddingOf, embeddingRequest, withDefaults } from '../engine/embedding.ts';
import type { Embedding } from '../engine/types.ts';
import { allResults, submitAll } from './calls.ts';
import type { Call, Route } from './calls.ts';
import { boolean, integer, limit, needed, object, oneOf, standingOf } from './fields.ts';
import { checkModel } from './models.ts';
import { commonFields, fieldNames, promptsOf, texts, usageOfResults } from './openai.ts';

const body = object({
  ...commonFields,
  input: needed(texts),
  encoding_format: oneOf('float', 'base64'),
  dimensions: integer(1, limit),
  pooling: oneOf('last', 'mean'),
  normalize: boolean,
});

export const embeddingRoutes: readonly Route[] = [
  { methods: ['post'], paths: ['/v1/embeddings'], fieldName: fieldNames('input'), takesBody: true, answer: embed },
];

async function embed(call: Call): Promise<void> {
  const asked = body(call.body, '');
  checkModel(call, asked.model);
  const { input, rid, encoding_format = 'float', pooling, normalize, dimensions } = asked;
  const options = withDefaults({ pooling, normalize, dimensions, ...standingOf(asked) }, call.engine.model);
  const requests = promptsOf(call, input, 'input').map((one) => embeddingRequest(one, options));
  const submissions = submitAll(call, requests, rid);
  const results = await allResults(submissions);
  const encode = encoding_format === 'base64' ? base64 : (vector: Float32Array) => [...vector];
  const entry = ({ vector }: Embedding, index: number) => ({ object: 'embedding', index, embedding: encode(vector) });
  const { prompt_tokens, total_tokens, prompt_tokens_details } = usageOfResults(results);
  call.res.json({
    object: 'list',
    data: results.map(([result]) => embeddingOf(result!, options)).map(entry),
    model: call.modelName,
    usage: { prompt_tokens, total_tokens, prompt_tokens_details },
  });
}

/** The values as float32 in little-endian order. */
function base64(vector: Float32Array): string {
  const bytes = Buffer.alloc(4 * vector.length);
  vector.forEach((value, i) => bytes.writeFloatLE(value, 4 * i));
  return bytes.toString('base64');
}
