/** llama.cpp's own server, over HTTP on this machine, with a cache for each of its 16 slots. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import http from 'node:http';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { buildLlamaCpp, llamaProgram, version } from '../llama-cpp.mjs';

const SLOTS = 16;
const POLL_MS = 5;

export const name = 'llama-server';
export const notes = [
  `-np ${SLOTS} -c 32768 (2048 where one cold process is measured, which has one slot), prompts as token ids, cache_prompt, ignore_eos.`,
  'ids inside a half character are not sent by the server; the one that ends the character stands for them.',
];
export const install = buildLlamaCpp;

/** @type {import('./peer.mjs').PeerModule['load']} */
export const load = (modelPath, options) => start(modelPath, options, ['--no-kv-unified']);

/**
 * @param {string} modelPath
 * @param {import('./peer.mjs').LoadOptions} options
 * @param {string[]} flags  more of them
 * @returns {Promise<import('./peer.mjs').Peer>}
 */
export async function start(modelPath, { threads, cacheTokens, contextLength }, flags) {
  const port = await freePort();
  const slots = Math.min(SLOTS, Math.floor(cacheTokens / contextLength));
  const sizes = ['-t', threads, '-np', slots, '-c', cacheTokens, '--port', port].map(String);
  const args = ['-m', modelPath, '--no-ui', '--log-disable', ...sizes, ...flags];
  const server = spawn(llamaProgram('llama-server'), args, { stdio: 'ignore' });
  const ended = once(server, 'exit').then(([code]) =>
    Promise.reject(new Error(`llama-server ended with code ${code}`)),
  );
  ended.catch(() => {});
  process.once('exit', () => server.kill('SIGKILL'));
  process.once('SIGTERM', () => process.exit(1));
  const url = `http://127.0.0.1:${port}`;
  await Promise.race([ended, ready(url)]);
  return {
    version: `llama-cpp-python ${version}`,
    device: `cpu (native build, ${threads} threads, ${slots} slots)`,
    pid: server.pid,
    generate: (request) => Promise.race([ended, generate(url, request)]),
    close: async () => server.kill('SIGKILL'),
  };
}

async function freePort() {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = /** @type {import('node:net').AddressInfo} */ (probe.address());
  probe.close();
  await once(probe, 'close');
  return port;
}

/** Resolves when the model is loaded; until then the port is closed, or the answer is 503. */
async function ready(url) {
  const isReady = () =>
    call(`${url}/health`).then(
      ({ statusCode }) => statusCode === 200,
      () => false,
    );
  while (!(await isReady())) await delay(POLL_MS);
}

/** Asks on a connection of its own: the server closes connections that were kept without a word. */
async function call(url, body) {
  const request = http.request(url, { method: body ? 'POST' : 'GET', agent: false });
  request.end(body && JSON.stringify(body));
  const [response] = await once(request, 'response');
  if (!body) response.resume();
  return response;
}

/**
 * @param {string} url
 * @param {import('../workloads.mjs').Request & { onToken: () => void }} request
 */
async function generate(url, { prompt, maxTokens, temperature = 0, seed = 0, jsonSchema, onToken }) {
  const constraint = jsonSchema ? { json_schema: jsonSchema } : { ignore_eos: true };
  const body = { prompt, n_predict: maxTokens, temperature, seed, stream: true, cache_prompt: true, ...constraint };
  const response = await call(`${url}/completion`, body);
  if (response.statusCode !== 200) throw new Error(`llama-server answers ${response.statusCode}`);
  const outputIds = [];
  let [text, cachedTokens] = ['', 0];
  for await (const line of createInterface({ input: response })) {
    if (!line.startsWith('data: ')) continue;
    const {
      content,
      tokens = [],
      tokens_predicted: count,
      stop,
      timings,
      error,
    } = JSON.parse(line.slice('data: '.length));
    if (error) throw new Error(`llama-server: ${error.message}`);
    text += content;
    while (outputIds.length < count) {
      outputIds.push(tokens.at(-1) ?? outputIds.at(-1) ?? 0);
      onToken();
    }
    if (stop) cachedTokens = timings.cache_n;
  }
  return { cachedTokens, outputIds, text };
}
