/** Engines for tests: tiny checkpoints with random weights, and the default model. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Engine, type EngineOptions } from '../../src/engine/engine.ts';

const here = path.dirname(fileURLToPath(import.meta.url));

/** A checkpoint of 0.2 M random weights that the repository keeps. */
export const tinyModel = path.join(here, '../../../../crates/engine/tests/fixtures/llama3');
export const defaultModel = 'smollm2-135m-instruct';

export function tinyEngine(options: Partial<EngineOptions> = {}): Promise<Engine> {
  return Engine.create({ modelPath: tinyModel, ...options });
}
