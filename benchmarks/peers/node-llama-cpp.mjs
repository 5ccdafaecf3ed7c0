/** node-llama-cpp on the CPU: its prebuilt binary, one context with one sequence per stream, batched by the library. */
import { importPackage, installPackages } from '../npm-packages.mjs';

const version = '3.22.1';
const binaries = {
  'linux-x64': 'linux-x64',
  'linux-arm64': 'linux-arm64',
  'darwin-arm64': 'mac-arm64-metal',
  'darwin-x64': 'mac-x64',
  'win32-x64': 'win-x64',
  'win32-arm64': 'win-arm64',
};
const binary = binaries[`${process.platform}-${process.arch}`];

export const name = 'node-llama-cpp';
/** Of its optional packages only the binary that is measured: all of them are several times larger. */
const packages = { 'node-llama-cpp': version, ...(binary && { [`@node-llama-cpp/${binary}`]: version }) };
export const install = () => installPackages(name, packages, ['--omit=optional']);
export const notes = [
  'EOS is ignored by yieldEogToken: an end-of-generation token is handed on like any other and evaluation goes on. Nothing is added to sampling, unlike with a ban of the token.',
  'No text is made of the tokens, which spares it the detokenizer; with a schema it is made of the last four, to see the end.',
  'Its grammars do not know minimum and maximum.',
  'A prompt goes to the idle sequence that it shares most with, and what they share is not computed again.',
];

/**
 * @param {string} modelPath
 * @param {import('./peer.mjs').LoadOptions} options
 * @returns {Promise<import('./peer.mjs').Peer>}
 */
export async function load(modelPath, { threads, streams, contextLength }) {
  const { getLlama } = await importPackage(name, 'node-llama-cpp/dist/index.js');
  const llama = await getLlama({
    gpu: false,
    build: 'never',
    skipDownload: true,
    maxThreads: threads,
    logLevel: 'error',
  });
  const model = await llama.loadModel({ modelPath });
  const context = await model.createContext({
    sequences: streams,
    contextSize: contextLength,
    threads: { ideal: threads, min: threads },
  });
  const idle = Array.from({ length: streams }, () => context.getSequence());
  return {
    version,
    device: `cpu (${features(llama.systemInfo)}, ${context.idealThreads} threads)`,
    generate: (request) => generate({ llama, model, idle }, request),
    close: () => llama.dispose(),
  };
}

/**
 * @param {any} loaded
 * @param {import('../workloads.mjs').Request & { onToken: () => void }} request
 */
async function generate({ llama, model, idle }, { prompt, maxTokens, temperature = 0, seed, jsonSchema, onToken }) {
  const sequence = takeNearest(idle, prompt);
  const constraint = jsonSchema ? await grammarOf(llama, model, jsonSchema) : { yieldEogToken: true };
  const outputIds = [];
  try {
    await sequence.adaptStateToTokens(prompt.slice(0, -1), false);
    const cachedTokens = sequence.nextTokenIndex;
    for await (const token of sequence.evaluate(prompt.slice(cachedTokens), { temperature, seed, ...constraint })) {
      onToken();
      outputIds.push(token);
      if (outputIds.length === maxTokens || (jsonSchema && isPadding(model, outputIds))) break;
    }
    return { cachedTokens, outputIds, text: jsonSchema && model.detokenize(outputIds) };
  } finally {
    idle.push(sequence);
  }
}

/** Whether the grammar's object has ended: what may follow it is line breaks, and the library stops at four. */
function isPadding(model, outputIds) {
  return model.detokenize(outputIds.slice(-4)).endsWith('\n'.repeat(4));
}

/** Takes the idle sequence that holds most of the start of this prompt. */
function takeNearest(idle, prompt) {
  const shared = idle.map(({ contextTokens }) => {
    const first = prompt.findIndex((id, i) => id !== contextTokens[i]);
    return first < 0 ? prompt.length : first;
  });
  return idle.splice(shared.indexOf(Math.max(...shared)), 1)[0];
}

/** Sampling by a schema; the state of a grammar is one generation's. */
async function grammarOf(llama, model, jsonSchema) {
  const { LlamaGrammarEvaluationState } = await importPackage(name, 'node-llama-cpp/dist/index.js');
  const grammar = await llama.createGrammarForJsonSchema(jsonSchema);
  return { grammarEvaluationState: new LlamaGrammarEvaluationState({ model, grammar }) };
}

/** The vector extensions that llama.cpp's one-line description of itself says are in use. */
function features(systemInfo) {
  const inUse = [...systemInfo.matchAll(/(\w+) = 1/g)].map(([, feature]) => feature.toLowerCase());
  return inUse.filter((feature) => /^(avx|amx|neon|sve|dotprod|matmul)/.test(feature)).join(' ');
}
