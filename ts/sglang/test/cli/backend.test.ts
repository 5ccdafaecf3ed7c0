/** What `run` and `chat` ask: a model here, a server, or an API, by its address. */
import test from 'ava';
import { openBackend } from '../../src/cli/backend.ts';
import { serve } from '../../src/server/serve.ts';
import { fn, gen } from '../../src/index.ts';
import { FakeEngine } from '../server/fake-engine.ts';

const ask = fn((s) => s.user`Hello`.assistant(gen('answer', { temperature: 0, maxTokens: 8 })));

test('a model answers in process, on a server and through the server’s API like OpenAI’s', async (t) => {
  const server = await serve(new FakeEngine(), { port: 0, apiKey: 'key' });
  t.teardown(() => server.stop());
  const choice = { modelPath: 'any', env: { SGLANG_API_KEY: 'key' }, loadEngine: async () => new FakeEngine() };
  const answers = await Promise.all(
    [undefined, server.url, `${server.url}/v1`].map(async (baseUrl) => {
      const { backend, close } = await openBackend({ ...choice, baseUrl });
      const { vars } = await ask.run({}, { backend });
      await close();
      return [backend.kind, vars.answer];
    }),
  );
  t.deepEqual(
    answers.map(([kind]) => kind),
    ['engine', 'runtime-endpoint', 'openai'],
  );
  for (const [kind, answer] of answers) t.regex(answer!, /^[a-z]{8}$/, kind);
});

test('an engine that was loaded is closed', async (t) => {
  const engine = new FakeEngine();
  const { close } = await openBackend({
    baseUrl: undefined,
    modelPath: 'any',
    env: {},
    loadEngine: async () => engine,
  });
  await close();
  t.true(engine.closed);
});
