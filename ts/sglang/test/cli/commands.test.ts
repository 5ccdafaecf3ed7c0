/** The command as a process: what it prints where, and with which code it ends. */
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import type { ExecutionContext } from 'ava';
import { runCommand } from '../../src/cli/commands.ts';
import { flags } from '../../src/cli/options.ts';
import { SglangError } from '../../src/engine/errors.ts';
import { startNode } from '../node-process.ts';

const real = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const fake = fileURLToPath(new URL('with-fake-engine.ts', import.meta.url));

function start(t: ExecutionContext, args: string[], env: Record<string, string> = {}, script = fake) {
  return startNode(t, ['--import=tsx', script, ...args], { env: { ...process.env, COLUMNS: '400', ...env } });
}

const run = (...given: Parameters<typeof start>) => start(...given).end;

/** Starts `serve` on a free port; gives its first line and its URL. */
async function serving(t: ExecutionContext, args: string[] = [], env: Record<string, string> = {}) {
  const { child, end } = start(t, ['serve', '--port', '0', ...args], env);
  const [line] = (await once(child.stdout, 'data')) as [string];
  return { child, line, url: /http:\/\/[^,\s]+/.exec(line)![0], end };
}

test('the help of serve tells every flag with its variable', async (t) => {
  const { code, out } = await run(t, ['serve', '--help'], {}, real);
  t.is(code, 0);
  const text = out.replace(/\s+/g, ' ');
  for (const flag of flags) {
    if (flag.group !== 'engine' && flag.group !== 'server') continue;
    t.regex(
      text,
      new RegExp(`--${flag.name}\\b.*env SGLANG_${flag.name.toUpperCase().replaceAll('-', '_')}\\]`),
      flag.name,
    );
  }
  t.regex((await run(t, ['--help'], {}, real)).out, /serve[^]*generate[^]*pull/);
});

test('--version is that of the package', async (t) => {
  const { version } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  t.is((await run(t, ['--version'], {}, real)).out, `${version}\n`);
});

/** A command in this process takes its handlers of signals with it; AVA ends a stuck worker by SIGTERM. */
const handlers = process.listenerCount('SIGTERM');
test.after((t) => t.is(process.listenerCount('SIGTERM'), handlers));

const mistakes: [args: string[], env: Record<string, string>, code: number, message: RegExp][] = [
  [['serve', '--prot', '1'], {}, 2, /unknown option '--prot'\n\(Did you mean --port\?\)/],
  [['srve'], {}, 2, /unknown command 'srve'\n\(Did you mean serve\?\)/],
  [['serve', 'extra'], {}, 2, /too many arguments/],
  [['generate'], {}, 2, /missing required argument 'prompt'/],
  [['serve', '--port', 'x'], {}, 2, /^sglang: --port: expected a whole number in \[0, 65535\], got "x"\n$/],
  [['serve', '--port', '65536'], {}, 2, /^sglang: --port: expected a whole number in \[0, 65535\]/],
  [['serve', '--threads', '1.5'], {}, 2, /^sglang: --threads: expected a whole number in \[1, 1024\], got "1.5"/],
  [['serve', '--context-length', '0'], {}, 2, /^sglang: --context-length: expected a whole number ≥ 1, got "0"/],
  [
    ['serve', '--schedule-policy', 'lifo'],
    {},
    2,
    /^sglang: --schedule-policy: expected one of lpm, fcfs, dfs-weight, random, got "lifo"/,
  ],
  [['serve'], { SGLANG_PORT: 'x' }, 2, /^sglang: SGLANG_PORT: expected a whole number/],
  [['serve'], { SGLANG_LOG_REQUESTS: 'maybe' }, 2, /^sglang: SGLANG_LOG_REQUESTS: expected 1, 0, true or false/],
  [['serve', '--dp-size', '2'], {}, 2, /^sglang: --dp-size: not supported yet\n$/],
  [['serve', '--tp', '0'], {}, 2, /^sglang: --tp: expected a whole number in \[1, 64\], got "0"/],
  [
    ['serve', '--tensor-parallel-size', 'two'],
    {},
    2,
    /^sglang: --tensor-parallel-size: expected a whole number in \[1, 64\]/,
  ],
  [['serve', '--quantization', 'awq'], {}, 2, /^sglang: --quantization: expected one of q8_0, .* got "awq"\n$/],
  [['serve', '--chat-template', './none.jinja'], {}, 2, /^sglang: --chat-template: ENOENT.*none.jinja/],
  [['serve', '--port', '0', '--model-path', 'broken'], {}, 1, /^sglang: broken: not a GGUF file\n$/],
  [['pull', 'smollm2-135m-instrct'], {}, 1, /^sglang: there is no .* did you mean "smollm2-135m-instruct"\?/],
];

for (const [args, env, code, message] of mistakes) {
  test(`a mistake is told in a line: ${Object.entries(env).join()} ${args.join(' ')}`, async (t) => {
    const [stdout, stderr] = [captured(), captured()];
    const examinerFor = () => t.fail() as never;
    const createEngine = () => Promise.reject(new SglangError('load_failed', 'broken: not a GGUF file'));
    t.is(
      await runCommand(args, {
        env,
        stdin: process.stdin,
        stdout: stdout.stream,
        stderr: stderr.stream,
        createEngine,
        examinerFor,
      }),
      code,
    );
    t.regex(stderr.text(), message);
    t.notRegex(stderr.text(), /\n\s+at /, 'no stack');
    t.is(stdout.text(), '');
  });
}

function captured() {
  const written: string[] = [];
  const stream = new Writable({ write: (chunk: Buffer, _encoding, done) => (written.push(chunk.toString()), done()) });
  return { stream: stream as unknown as NodeJS.WriteStream, text: () => written.join('') };
}

test('options come from the command line, else the environment, else the defaults', async (t) => {
  const env = {
    SHOW_OPTIONS: '1',
    SGLANG_THREADS: '3',
    SGLANG_MAX_RUNNING_REQUESTS: '5',
    SGLANG_DISABLE_RADIX_CACHE: 'true',
  };
  const args = ['--model', 'm', '--threads', '2', '--max-new-tokens', '0', '--chat-template', 'chatml'];
  const { out, err, code } = await run(t, ['generate', 'x', ...args], env);
  t.is(code, 0, err);
  t.deepEqual(JSON.parse(out.split('\n')[0]!), {
    modelPath: 'm',
    device: 'auto',
    dtype: 'auto',
    kvCacheDtype: 'auto',
    schedulePolicy: 'lpm',
    threads: 2,
    maxRunningRequests: 5,
    disableRadixCache: true,
    chatTemplate: 'chatml',
  });
});

test('a template file is read', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'sglang-test-'));
  t.teardown(() => rm(folder, { recursive: true }));
  await writeFile(join(folder, 'a.jinja'), '{{ x }}');
  const { out } = await run(t, ['generate', 'x', '--chat-template', join(folder, 'a.jinja')], { SHOW_OPTIONS: '1' });
  t.is((JSON.parse(out.split('\n')[0]!) as { chatTemplate: string }).chatTemplate, '{{ x }}');
});

test('generate prints the text, and progress elsewhere', async (t) => {
  const { code, out, err } = await run(t, ['generate', 'a', '--max-new-tokens', '3', '--temperature', '0']);
  t.deepEqual([code, out], [0, 'tuv\n']);
  t.is(err, 'loading: 50 % of 100 MB\nloading: 100 % of 100 MB\n');
  t.not((await run(t, ['generate', 'a', '--chat', '--max-new-tokens', '3'])).out, out);
});

test('serve says in one line what is ready, and ends in order at SIGTERM', async (t) => {
  const { child, line, url, end } = await serving(t, ['--served-model-name', 'name', '--api-key', 'hidden']);
  t.regex(line, /^ready: http:\/\/127\.0\.0\.1:\d+, model name, fake \(1 thread\), context 200, KV 4096 tokens\n$/);
  const headers = { authorization: 'Bearer hidden' };
  const described = await (await fetch(`${url}/get_server_info`, { headers })).text();
  t.regex(described, /"schedule_policy":"lpm"/);
  t.notRegex(described, /hidden/, 'the key is not told');
  child.kill('SIGTERM');
  const { code, err } = await end;
  t.is(code, 0);
  t.regex(err, /"msg":"stopping; a second signal ends it at once"/);
});

test('a running request is finished before serve ends; a second signal does not wait', async (t) => {
  const { child, url, end } = await serving(t, ['--log-level', 'silent']);
  const headers = { 'content-type': 'application/json' };
  const ask = (text: string) =>
    fetch(`${url}/generate`, { method: 'POST', headers, body: JSON.stringify({ text, stream: true }) });
  const response = await ask('a');
  child.kill('SIGINT');
  t.regex(await response.text(), /\[DONE\]\n\n$/);
  t.is((await end).code, 0);

  const other = await serving(t, ['--log-level', 'silent']);
  const body = JSON.stringify({ text: 'SLOW' });
  const lost = t.throwsAsync(fetch(`${other.url}/generate`, { method: 'POST', headers, body }));
  const isRunning = async () => (await (await fetch(`${other.url}/get_load`)).text()).includes('"num_reqs":1');
  while (!(await isRunning())) await new Promise((resolve) => setTimeout(resolve, 20));
  other.child.kill('SIGINT');
  await new Promise((resolve) => setTimeout(resolve, 200));
  other.child.kill('SIGINT');
  t.is((await other.end).code, 130);
  await lost;
});

test('requests are logged as JSON into a pipe', async (t) => {
  const { child, url, end } = await serving(t, ['--log-requests']);
  await fetch(`${url}/health`);
  child.kill('SIGTERM');
  const lines = (await end).err.split('\n').filter((line) => line.startsWith('{'));
  const logged = lines.map((line) => JSON.parse(line) as Record<string, unknown>).find(({ msg }) => msg === 'request');
  t.like(logged, { method: 'GET', path: '/health', status: 200 });
});

test('a port in use is told before the model is loaded', async (t) => {
  const other = createServer().listen(0, '127.0.0.1');
  t.teardown(() => other.close());
  await once(other, 'listening');
  const { port } = other.address() as AddressInfo;
  const { code, err } = await run(t, ['serve', '--port', String(port)]);
  t.deepEqual([code, err], [1, `sglang: port ${port} on 127.0.0.1 is in use; choose another with --port\n`]);
});

test('a signal while the model loads ends the command', async (t) => {
  const { child, end } = start(t, ['serve', '--port', '0', '--model-path', 'slow']);
  await once(child.stderr, 'data');
  child.kill('SIGINT');
  const { code, err } = await end;
  t.is(code, 1);
  t.regex(err, /sglang: stopped by SIGINT\n$/);
});
