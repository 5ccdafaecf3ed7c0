/** transformers.js on onnxruntime-node: one generation at a time, the weights in 4 bits as a graph made by `onnx-model.mjs`. */
import path from 'node:path';
import { importPackage, installPackages } from '../npm-packages.mjs';

const version = '4.3.1';

export const name = 'transformers-js';
export const notes = [
  'The weights are those of the Q4_0 file, embedding and head included, as MatMulNBits with int8 activations; the head is computed for the last row only.',
  'There is no EOS in its configuration, so nothing stops it; no tokenizer is used.',
];
export const install = () => installPackages(name, { '@huggingface/transformers': version });

/**
 * @param {string} modelPath  a folder
 * @param {import('./peer.mjs').LoadOptions} options
 * @returns {Promise<import('./peer.mjs').Peer>}
 */
export async function load(modelPath, { threads }) {
  const { AutoModelForCausalLM, Tensor, env } = await importPackage(
    name,
    '@huggingface/transformers/dist/transformers.node.mjs',
  );
  env.allowRemoteModels = false;
  env.localModelPath = path.dirname(modelPath);
  const session_options = { intraOpNumThreads: threads, interOpNumThreads: 1 };
  const options = { dtype: 'q4', device: 'cpu', local_files_only: true, session_options };
  const model = await AutoModelForCausalLM.from_pretrained(path.basename(modelPath), options);
  return {
    version,
    device: `cpu (onnxruntime, ${threads} threads)`,
    generate: (request) => generate(model, Tensor, request),
    close: () => model.dispose(),
  };
}

async function generate(model, Tensor, { prompt, maxTokens, onToken }) {
  const row = (values) => new Tensor('int64', BigInt64Array.from(values.map(BigInt)), [1, values.length]);
  const outputIds = [];
  let isPrompt = true;
  const put = ([ids]) => {
    if (isPrompt) return void (isPrompt = false);
    outputIds.push(...ids.map(Number));
    ids.forEach(() => onToken());
  };
  await model.generate({
    inputs: row(prompt),
    attention_mask: row(prompt.map(() => 1)),
    max_new_tokens: maxTokens,
    do_sample: false,
    streamer: { put, end: () => {} },
  });
  return { cachedTokens: null, outputIds };
}
