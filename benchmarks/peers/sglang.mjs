/** The engine of this repository, in process, from the built package. */
import { readFileSync } from 'node:fs';

export const name = 'sglang';
/** npm packages to install; the workspace has this one built. */
export const packages = {};
export const notes = [
  'EOS is ignored by the engine (ignoreEos); it may be sampled and generation goes on.',
  'The timed work includes the streamed text.',
];

/**
 * @param {string} modelPath
 * @param {import('./peer.mjs').LoadOptions} options
 * @returns {Promise<import('./peer.mjs').Peer>}
 */
export async function load(modelPath, { threads, streams, contextLength }) {
  const { Engine } = await import('../../ts/sglang/dist/index.js');
  const { version } = JSON.parse(readFileSync(new URL('../../ts/sglang/package.json', import.meta.url), 'utf8'));
  const maxTotalTokens = contextLength * streams;
  const engine = await Engine.create({
    modelPath,
    threads,
    contextLength,
    maxTotalTokens,
    maxRunningRequests: streams,
  });
  return {
    version,
    device: engine.model.device,
    generate: (request) => generate(engine, request),
    close: () => engine.close(),
  };
}

async function generate(engine, { prompt, maxTokens, onToken }) {
  const samplingParams = { maxNewTokens: maxTokens, ignoreEos: true, temperature: 0 };
  const generation = engine.generate({ prompt, samplingParams });
  for await (const { outputIds } of generation) outputIds.forEach(() => onToken());
  const { meta, outputIds } = await generation;
  return { promptTokens: meta.promptTokens, outputIds };
}
