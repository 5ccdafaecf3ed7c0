/**
 * The README in one run: the multi-turn program in process, the same program against a server, and a plain request to
 * that server as curl would send it.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { createRequire } from 'node:module';
import { createServer, type AddressInfo } from 'node:net';
import path from 'node:path';
import { Engine, RuntimeEndpoint, type Backend } from 'sglang';
import { multiTurn } from './multi_turn.ts';

const modelPath = process.env.SGLANG_MODEL_PATH ?? 'smollm2-135m-instruct';
const questions = { q1: 'What is the capital of the United States?', q2: 'List two local attractions.' };

/** Runs the program and prints its conversation, its speed and what the cache spared it. */
async function show(title: string, backend: Backend): Promise<void> {
  console.log(`\n${title}`);
  const start = performance.now();
  const state = await multiTurn.run(questions, { backend, temperature: 0, maxTokens: 64 });
  const seconds = (performance.now() - start) / 1000;
  for (const { role, content } of state.messages()) console.log(`  ${role}: ${content}`);
  const metas = [state.meta('answer1'), state.meta('answer2')];
  const total = (pick: (meta: (typeof metas)[number]) => number) => metas.reduce((sum, meta) => sum + pick(meta), 0);
  const [prompt, cached] = [total((meta) => meta.promptTokens), total((meta) => meta.cachedTokens)];
  const speed = total((meta) => meta.completionTokens) / seconds;
  console.log(`  ${speed.toFixed(1)} tokens/s; ${cached} of ${prompt} prompt tokens came from the cache`);
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

/** Starts `sglang serve` and waits until it answers. */
async function startServer(port: number): Promise<ChildProcess> {
  const manifest = createRequire(import.meta.url).resolve('sglang/package.json');
  const cli = path.join(path.dirname(manifest), 'dist', 'cli.js');
  const args = [cli, 'serve', '--model-path', modelPath, '--port', String(port), '--log-level', 'warn'];
  const server = spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  while (server.exitCode === null) {
    const response = await fetch(`http://127.0.0.1:${port}/health`).catch(() => undefined);
    if (response?.ok) return server;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`the server ended with exit code ${server.exitCode}`);
}

async function plainRequest(url: string): Promise<void> {
  const body = { prompt: 'Say this is a test', max_tokens: 16, temperature: 0 };
  console.log(`\nPOST ${url}/v1/completions ${JSON.stringify(body)}`);
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(`${url}/v1/completions`, { method: 'POST', headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  const answer = (await response.json()) as { choices: { text: string }[]; usage: unknown };
  console.log(`  text: ${JSON.stringify(answer.choices[0]?.text)}`);
  console.log(`  usage: ${JSON.stringify(answer.usage)}`);
}

async function main(): Promise<void> {
  const engine = await Engine.create({ modelPath });
  await show(`In process (${engine.model.device})`, engine);
  await engine.close();
  const port = await freePort();
  const server = await startServer(port);
  try {
    await show(`Against a server on port ${port}`, new RuntimeEndpoint(`http://127.0.0.1:${port}`));
    await plainRequest(`http://127.0.0.1:${port}`);
  } finally {
    server.kill();
  }
}

await main();
