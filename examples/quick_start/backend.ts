/**
 * Where an example runs, by the environment's SGLANG_BACKEND: `engine` (in this process, the default), the URL of a
 * server, `openai:<model>`, or `fake` (no model, canned answers).
 */
import { realpathSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { Engine, FakeBackend, OpenAI, RuntimeEndpoint, setDefaultBackend, type Backend } from 'sglang';

const modelPath = process.env.SGLANG_MODEL_PATH ?? 'smollm2-135m-instruct';

const cannedAnswers = new FakeBackend({
  replies: [
    ['capital of the United States', 'Washington, D.C.'],
    ['two local attractions', 'The National Mall and the Lincoln Memorial.'],
    ['I need to use a ', 'calculator'],
    ['math expression is', ' 6 * 7'],
    ['website url is', ' https://example.org'],
    ['expand tip 1', 'Eat a bit of everything.'],
    ['expand tip 2', 'Walk every day.'],
    ['In summary', ', eat well and move.'],
    ['in this picture', 'A small red square.'],
    ['Google DNS', '8.8.8.8'],
    ['United Kingdom', ' London'],
    ['France', ' Paris'],
    ['Japan', ' Tokyo'],
  ],
});

async function chosenBackend(choice: string): Promise<Backend> {
  if (choice === 'fake') return cannedAnswers;
  if (choice === 'engine') return Engine.create({ modelPath });
  if (/^https?:/.test(choice)) return new RuntimeEndpoint(choice);
  if (choice.startsWith('openai:')) return new OpenAI(choice.slice('openai:'.length));
  throw new Error(`SGLANG_BACKEND=${choice}: expected fake, engine, http://…, or openai:<model>`);
}

/** Runs `main` on the chosen backend where the module at `url` is what Node was started with. */
export async function runAsMain(url: string, main: () => Promise<void>): Promise<void> {
  if (pathToFileURL(realpathSync(process.argv[1]!)).href !== url) return;
  setDefaultBackend(await chosenBackend(process.env.SGLANG_BACKEND ?? 'engine'));
  await main();
}
