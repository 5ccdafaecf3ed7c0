/**
 * Where an example runs, by the environment's SGLANG_BACKEND: `engine` (in this process, the default), the URL of a
 * server, `openai:<model>`, or `fake` (no model, canned answers).
 */
import { realpathSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { Engine, FakeBackend, OpenAI, RuntimeEndpoint, setDefaultBackend, type Backend } from 'sglang';
import { cannedReplies } from './canned.ts';

const modelPath = process.env.SGLANG_MODEL_PATH ?? 'smollm2-135m-instruct';

async function chosenBackend(choice: string): Promise<Backend> {
  if (choice === 'fake') return new FakeBackend({ replies: cannedReplies });
  if (choice === 'engine') return Engine.create({ modelPath });
  if (/^https?:/.test(choice)) return new RuntimeEndpoint(choice);
  if (choice.startsWith('openai:')) return new OpenAI(choice.slice('openai:'.length));
  throw new Error(`SGLANG_BACKEND=${choice}: expected fake, engine, http://…, or openai:<model>`);
}

/** Runs `main` on the chosen backend where the module at `url` is what Node was started with. */
export async function runAsMain(url: string, main: (backend: Backend) => Promise<void>): Promise<void> {
  if (pathToFileURL(realpathSync(process.argv[1]!)).href !== url) return;
  const backend = await chosenBackend(process.env.SGLANG_BACKEND ?? 'engine');
  setDefaultBackend(backend);
  await main(backend);
}
