/**
 * The command line: `serve`, `run`, `chat`, `generate`, `pull`, `grammar`. A mistake in the call ends with 2, any other failure with 1, each told in
 * one line on stderr. The engine is loaded by the commands that need it, so that `--help` is instant.
 */
import { readFile } from 'node:fs/promises';
import { Command, CommanderError } from 'commander';
import { version } from '../../package.json';
import { wireNames } from '../backends/wire-names.ts';
import type { EngineOptions, LoadProgress } from '../engine/engine.ts';
import type { EngineLike } from '../engine/types.ts';
import { resolveModel } from '../models/resolve.ts';
import type { OpenBackend } from './backend.ts';
import { examineFile, examinerFor, lineOf } from './grammar.ts';
import type { Examiner } from './grammar.ts';
import { progressView } from './load-progress.ts';
import { createLogger } from './log.ts';
import { addFlags, readFlags, UsageError } from './options.ts';
import type { Options } from './options.ts';

/** What the commands touch outside themselves; tests put an engine of their own in its place. */
export interface Surroundings {
  env: NodeJS.ProcessEnv;
  stdin: NodeJS.ReadableStream;
  stdout: NodeJS.WriteStream;
  stderr: NodeJS.WriteStream;
  createEngine(options: EngineOptions): Promise<EngineLike>;
  examinerFor(tokenizerPath: string): Examiner;
}

const real: Surroundings = {
  env: process.env,
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  createEngine: async (options) => (await import('../engine/engine.ts')).Engine.create(options),
  examinerFor,
};

/** Runs the command that `args` ask for; gives the exit code. */
export async function runCommand(args: readonly string[], around: Surroundings = real): Promise<number> {
  try {
    await program(around).parseAsync(args, { from: 'user' });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    around.stderr.write(`sglang: ${(error as Error).message}\n`);
    return error instanceof UsageError ? 2 : 1;
  }
}

function program(around: Surroundings): Command {
  const all = new Command('sglang')
    .description('Serve and run language models.')
    .version(version)
    .exitOverride()
    .configureOutput({ writeOut: (text) => around.stdout.write(text), writeErr: (text) => around.stderr.write(text) });
  const serve = all.command('serve').description('serve a model over HTTP: the OpenAI API and the native one');
  addFlags(serve, ['engine', 'server']).action(() => stoppable((stop) => runServe(serve, around, stop)));
  const generate = all.command('generate').description('print the continuation of a prompt');
  addFlags(generate.argument('<prompt>', 'the prompt'), ['engine', 'sampling', 'generate']);
  generate.action((prompt: string) => stoppable((stop) => runGenerate(prompt, generate, around, stop)));
  const run = all.command('run').description('run a program of a file, on rows of arguments');
  addFlags(run.argument('<file>', 'exports a program'), ['run', 'backend', 'engine', 'sampling']);
  run.action((file: string) => stoppable((stop) => runRun(file, run, around, stop)));
  const chat = all.command('chat').description('talk with a model');
  addFlags(chat, ['chat', 'backend', 'engine', 'sampling']).action(() => runChat(chat, around));
  const pull = all
    .command('pull')
    .description('fetch a model and print its path')
    .argument('<model>', 'a named model or a hub id')
    .option('--revision <name>', 'branch, tag or commit of a hub id');
  pull.action((name: string) => stoppable((stop) => runPull(name, pull.opts(), around, stop)));
  const grammar = all
    .command('grammar')
    .description('compile constraints and walk instances through their masks')
    .argument(
      '<files...>',
      'JSON: {schema, tests: [{valid, data}]}, the same with regex, ebnf or lark, or a JSON Schema',
    )
    .requiredOption('--tokenizer <path>', 'a tokenizer.json, the folder of one, a GGUF file, or a named model')
    .option('--json', 'one JSON object per file');
  grammar.action((files: string[]) => runGrammar(files, grammar.opts(), around));
  return all;
}

/** Ends with 1 where an instance got the wrong verdict. */
async function runGrammar(
  files: string[],
  { tokenizer, json = false }: { tokenizer: string; json?: boolean },
  around: Surroundings,
): Promise<void> {
  const { path, tokenizerPath = path } = await resolveModel(tokenizer, { env: around.env, part: 'tokenizer' });
  const examiner = around.examinerFor(tokenizerPath);
  let wrong = 0;
  for (const file of files) {
    const examined = await examineFile(examiner, file);
    around.stdout.write(`${json ? JSON.stringify(examined) : lineOf(examined)}\n`);
    wrong += examined.wrong.length;
  }
  if (wrong > 0) throw new Error(`${wrong} wrong verdicts`);
}

async function runPull(
  name: string,
  { revision }: { revision?: string },
  around: Surroundings,
  stop: AbortSignal,
): Promise<void> {
  const view = progressView(around.stderr);
  try {
    const { path } = await resolveModel(name, { env: around.env, revision, signal: stop, onProgress: view.show });
    around.stdout.write(`${path}\n`);
  } finally {
    view.end();
  }
}

async function runGenerate(prompt: string, command: Command, around: Surroundings, stop: AbortSignal): Promise<void> {
  const samplingParams = readFlags(command, 'sampling', around.env);
  const { chat } = readFlags(command, 'generate', around.env);
  const engine = await loadEngine(readFlags(command, 'engine', around.env), around, stop);
  try {
    const input = chat ? { messages: [{ role: 'user', content: prompt }] } : { prompt };
    for await (const { text } of engine.generate({ ...input, samplingParams, signal: stop })) around.stdout.write(text);
    around.stdout.write('\n');
  } finally {
    await engine.close();
  }
}

async function runRun(file: string, command: Command, around: Surroundings, stop: AbortSignal): Promise<void> {
  const { env, stdout, stderr } = around;
  const options = readFlags(command, 'run', env);
  const { maxNewTokens: maxTokens, temperature } = readFlags(command, 'sampling', env);
  const { baseUrl } = readFlags(command, 'backend', env);
  const { loadProgram } = await import('./load-program.ts');
  const { program, backend: own } = await loadProgram(file, options.export);
  const open = () =>
    own && baseUrl === undefined
      ? Promise.resolve({ backend: own, close: async () => {} })
      : backendOf(command, around, stop);
  const { runProgram } = await import('./run.ts');
  const batch = { temperature, maxTokens, signal: stop };
  await runProgram({ program, file, options, batch, stdout, stderr, openBackend: open });
}

async function runChat(command: Command, around: Surroundings): Promise<void> {
  const { env, stdin, stdout, stderr } = around;
  const { system } = readFlags(command, 'chat', env);
  const { maxNewTokens: maxTokens, temperature } = readFlags(command, 'sampling', env);
  const { backend, close } = await backendOf(command, around);
  const { chat } = await import('./chat.ts');
  const { chatHistory } = await import('./chat-history.ts');
  const sampling = { temperature, maxTokens };
  await chat({ backend, system, sampling, stdin, stdout, stderr, history: chatHistory(env) }).finally(close);
}

/** What the flags ask for: a server, or the model loaded here. */
async function backendOf(command: Command, around: Surroundings, stop?: AbortSignal): Promise<OpenBackend> {
  const { env } = around;
  const model = readFlags(command, 'engine', env);
  const { baseUrl } = readFlags(command, 'backend', env);
  const { openBackend } = await import('./backend.ts');
  const isTold = ({ phase }: LoadProgress) => around.stderr.isTTY === true || phase === 'download';
  const loadHere = () => loadEngine(model, around, stop, isTold);
  return openBackend({ baseUrl, modelPath: model.modelPath, env, loadEngine: loadHere });
}

async function runServe(command: Command, around: Surroundings, stop: AbortSignal): Promise<void> {
  const { logLevel, enableMetrics: _, ...server } = readFlags(command, 'server', around.env);
  const model = readFlags(command, 'engine', around.env);
  const logger = createLogger(logLevel, around.stderr);
  const { serve, assertFree } = await import('../server/serve.ts');
  await assertFree(server.host, server.port);
  const engine = await loadEngine(model, around, stop);
  const { apiKey: _secret, ...flags } = { ...model, ...server };
  const servedModelName = server.servedModelName ?? model.modelPath;
  const running = await serve(engine, { ...server, servedModelName, logger, flags: wireNames(flags) }).catch(
    async (error: unknown) => {
      await engine.close();
      throw error;
    },
  );
  around.stdout.write(`${readyLine(running.url, servedModelName, engine)}\n`);
  await aborted(stop);
  logger.info('stopping; a second signal ends it at once');
  await running.stop();
}

function readyLine(url: string, name: string, { model }: EngineLike): string {
  return `ready: ${url}, model ${name}, ${model.device}, context ${model.contextLength}, KV ${model.maxTotalTokens} tokens`;
}

async function loadEngine(
  options: Options<'engine'>,
  around: Surroundings,
  signal?: AbortSignal,
  isTold: (progress: LoadProgress) => boolean = () => true,
): Promise<EngineLike> {
  const view = progressView(around.stderr);
  const onProgress = (progress: LoadProgress) => {
    if (isTold(progress)) view.show(progress);
  };
  try {
    const chatTemplate = options.chatTemplate && (await templateText(options.chatTemplate));
    return await around.createEngine({ ...options, chatTemplate, onProgress, signal });
  } finally {
    view.end();
  }
}

/** The text of a template file; anything else is the engine's to understand. */
async function templateText(nameOrFile: string): Promise<string> {
  return readFile(nameOrFile, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (/[./\\]/.test(nameOrFile)) throw new UsageError(`--chat-template: ${error.message}`);
    return nameOrFile;
  });
}

/** Runs what the first SIGINT or SIGTERM asks to stop; the second ends the process. */
async function stoppable(body: (stop: AbortSignal) => Promise<void>): Promise<void> {
  const control = new AbortController();
  const onSignal = (name: string) => {
    if (control.signal.aborted) process.exit(130);
    control.abort(new Error(`stopped by ${name}`));
  };
  const names = ['SIGINT', 'SIGTERM'] as const;
  names.forEach((name) => process.on(name, onSignal));
  await body(control.signal).finally(() => names.forEach((name) => process.off(name, onSignal)));
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
