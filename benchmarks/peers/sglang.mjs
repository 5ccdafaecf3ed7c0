/** The engine of this repository, in process, from the built package. */
import { readFileSync } from 'node:fs';

export const name = 'sglang';
export const notes = [
  'EOS is ignored by the engine (ignoreEos); it may be sampled and generation goes on.',
  'The timed work includes the streamed text.',
];
/** The workspace has it built. */
export const install = async () => {};

export const { version } = JSON.parse(readFileSync(new URL('../../ts/sglang/package.json', import.meta.url), 'utf8'));

/**
 * @param {string} modelPath
 * @param {import('./peer.mjs').LoadOptions} options
 * @returns {Promise<import('./peer.mjs').Peer>}
 */
export async function load(modelPath, { threads, streams, contextLength, cacheTokens }) {
  const { Engine } = await import('../../ts/sglang/dist/index.js');
  const engine = await Engine.create({
    modelPath,
    threads,
    contextLength,
    maxTotalTokens: cacheTokens,
    maxRunningRequests: streams,
  });
  return {
    version,
    device: engine.model.device,
    generate: (request) => generate(engine, request),
    schedulingShare: () => schedulingShare(engine.stats()),
    close: () => engine.close(),
  };
}

/**
 * Queue, matching, leases, plan, text and insertion, as a share of the time of all steps: more than the cache costs.
 * @param {any} stats
 */
function schedulingShare({ admitSeconds, scheduleSeconds, runSeconds, commitSeconds, emitSeconds }) {
  const scheduling = admitSeconds + scheduleSeconds + commitSeconds;
  return scheduling / (scheduling + runSeconds + emitSeconds);
}

/**
 * @param {any} engine
 * @param {import('../workloads.mjs').Request & { onToken: () => void }} request
 */
async function generate(engine, { prompt, maxTokens, temperature = 0, seed, jsonSchema, onToken }) {
  const constraint = jsonSchema ? { jsonSchema: JSON.stringify(jsonSchema) } : { ignoreEos: true };
  const generation = engine.generate({
    inputIds: prompt,
    samplingParams: { maxNewTokens: maxTokens, temperature, seed, ...constraint },
  });
  for await (const { outputIds } of generation) outputIds.forEach(() => onToken());
  const { meta, outputIds, text } = await generation;
  return { cachedTokens: meta.cachedTokens, outputIds, text };
}
