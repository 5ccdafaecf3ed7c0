/** What a command runs on: a model in this process, or a server. Law: keys come from the environment only. */
import type { Backend } from '../backends/backend.ts';
import { engineBackend } from '../backends/engine.ts';
import { OpenAI } from '../backends/openai.ts';
import { RuntimeEndpoint } from '../backends/runtime-endpoint.ts';
import type { EngineLike } from '../engine/types.ts';

export interface OpenBackend {
  backend: Backend;
  close(): Promise<void>;
}

export interface BackendChoice {
  baseUrl: string | undefined;
  /** Its name at a server that has several. */
  modelPath: string;
  env: NodeJS.ProcessEnv;
  loadEngine(): Promise<EngineLike>;
}

/** An address that ends in a version, such as `…/v1`, is an API like OpenAI's; any other is an SGLang server. */
export async function openBackend({ baseUrl, modelPath, env, loadEngine }: BackendChoice): Promise<OpenBackend> {
  const close = async () => {};
  if (baseUrl === undefined) {
    const engine = await loadEngine();
    return { backend: engineBackend(engine), close: () => engine.close() };
  }
  const apiKey = env['SGLANG_API_KEY'] || env['OPENAI_API_KEY'];
  if (!/\/v\d+\/?$/.test(baseUrl)) return { backend: new RuntimeEndpoint(baseUrl, { apiKey }), close };
  return { backend: new OpenAI(modelPath, { baseURL: baseUrl, apiKey }), close };
}
