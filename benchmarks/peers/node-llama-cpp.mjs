/** node-llama-cpp on the CPU: its prebuilt binary, one context with one sequence per stream, batched by the library. */

const version = '3.22.1';
const binaries = {
  'linux-x64': 'linux-x64',
  'linux-arm64': 'linux-arm64',
  'darwin-arm64': 'mac-arm64-metal',
  'darwin-x64': 'mac-x64',
  'win32-x64': 'win-x64',
  'win32-arm64': 'win-arm64',
};
/** Special tokens spelled in a prompt are recognised, as they are by our engine. */
const SPECIAL = true;
const binary = binaries[`${process.platform}-${process.arch}`];

export const name = 'node-llama-cpp';
/** Of its optional packages only the binary that is measured: all of them are several times larger. */
export const packages = { 'node-llama-cpp': version, ...(binary && { [`@node-llama-cpp/${binary}`]: version }) };
export const notes = [
  'EOS is ignored by yieldEogToken: an end-of-generation token is handed on like any other and evaluation goes on. Nothing is added to sampling, unlike with a ban of the token.',
  'No text is made of the tokens, which spares it the detokenizer.',
  'A stream keeps its sequence, and what the next prompt shares with its last one is not computed again.',
];

/**
 * @param {string} modelPath
 * @param {import('./peer.mjs').LoadOptions} options
 * @returns {Promise<import('./peer.mjs').Peer>}
 */
export async function load(modelPath, { threads, streams, contextLength }) {
  const { getLlama } = await import('../.peers/node_modules/node-llama-cpp/dist/index.js');
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
    generate: (request) => generate(model, idle, request),
    close: () => llama.dispose(),
  };
}

async function generate(model, idle, { prompt, maxTokens, onToken }) {
  const tokens = [...start(model), ...model.tokenize(prompt, SPECIAL)];
  const sequence = idle.pop();
  const outputIds = [];
  try {
    await sequence.adaptStateToTokens(tokens.slice(0, -1), false);
    const rest = tokens.slice(sequence.nextTokenIndex);
    for await (const token of sequence.evaluate(rest, { temperature: 0, yieldEogToken: true })) {
      onToken();
      outputIds.push(token);
      if (outputIds.length === maxTokens) break;
    }
  } finally {
    idle.push(sequence);
  }
  return { promptTokens: tokens.length, outputIds };
}

/** The tokens this model wants before any prompt. */
function start({ tokens }) {
  return tokens.shouldPrependBosToken ? [tokens.bos] : [];
}

/** The vector extensions that llama.cpp's one-line description of itself says are in use. */
function features(systemInfo) {
  const inUse = [...systemInfo.matchAll(/(\w+) = 1/g)].map(([, feature]) => feature.toLowerCase());
  return inUse.filter((feature) => /^(avx|amx|neon|sve|dotprod|matmul)/.test(feature)).join(' ');
}
