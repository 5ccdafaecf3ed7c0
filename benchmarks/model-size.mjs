/** What a model costs, worked out from the header of its file: bytes and operations per token. */
import { readHeader, tensorBytes } from './gguf.mjs';
import { sum } from './statistics.mjs';

/** Bytes of a key or a value in the cache: half precision. */
const KV_BYTES = 2;

/** @param {string} path a GGUF file */
export function modelSize(path) {
  const { entries, tensors } = readHeader(path);
  const architecture = entries['general.architecture'].value;
  const number = (name) => Number(entries[`${architecture}.${name}`].value);
  const layers = number('block_count');
  const heads = number('attention.head_count');
  const headSize = number('embedding_length') / heads;
  const used = (tensor) => (tensor.shape.length === 3 ? number('expert_used_count') / tensor.shape[2] : 1);
  const matrices = tensors.filter(({ shape }) => shape.length > 1);
  const isHead = ({ name }) => name === 'output.weight' || name === 'token_embd.weight';
  const head = matrices.filter(isHead).find(({ name }, _, all) => all.length === 1 || name === 'output.weight');
  const inLayers = matrices.filter((tensor) => !isHead(tensor));
  const operations = (tensor) => 2 * tensor.shape.reduce((a, b) => a * b) * used(tensor);
  return {
    /** Read once for each step of decoding; of a mixture, what one token takes. */
    bytesPerStep: sum([...inLayers, head].map((tensor) => tensorBytes(tensor) * used(tensor))),
    kvBytesPerToken: 2 * layers * number('attention.head_count_kv') * headSize * KV_BYTES,
    layerOperations: sum(inLayers.map(operations)),
    headOperations: operations(head),
    /** Of one token that attends to `positions`: scores and the sum of values. */
    attentionOperations: (positions) => 4 * layers * heads * headSize * positions,
  };
}
