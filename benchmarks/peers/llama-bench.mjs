/** llama.cpp measured by its own programs: llama-bench for one stream, llama-batched-bench for several. */
import { buildLlamaCpp, llamaProgram, version } from '../llama-cpp.mjs';
import { collect } from '../programs.mjs';

export const name = 'llama-bench';
export const notes = [
  'llama-bench (one stream) or llama-batched-bench (several, separate prompts), one repetition after their own warm-up.',
  'They only compute: no sampling, no tokenizer, no text; a single stream decodes from an empty context.',
];
export const install = buildLlamaCpp;

/**
 * @param {string} modelPath
 * @param {{ threads: number, streams: number, size: import('../workloads.mjs').Size, rate: string }} options
 * @returns {Promise<import('./peer.mjs').Measured>}
 */
export async function measure(modelPath, { threads, streams, size: { prompt, tokens }, rate }) {
  if (rate === 'output') throw new Error(`${name} measures prefill and decoding only`);
  const common = ['-m', modelPath, '-t', threads];
  const many = [...common, '-c', streams * (prompt + tokens), '-npp', prompt, '-ntg', tokens, '-npl', streams];
  const counts = rate === 'prefill' ? ['-p', prompt, '-n', 0] : ['-p', 0, '-n', tokens];
  return streams > 1
    ? { tokensPerSecond: batched(await run('llama-batched-bench', [...many, '--output-format', 'jsonl'])), ...build }
    : single(JSON.parse(await run('llama-bench', [...common, ...counts, '-r', 1, '-o', 'json'])));
}

const build = { version: `llama-cpp-python ${version}`, device: 'cpu (native build)' };

function run(program, args) {
  return collect(llamaProgram(program), args.map(String));
}

function single([{ avg_ts: tokensPerSecond }]) {
  return { tokensPerSecond, ...build };
}

/** The decoding speed in the line of JSON among the lines of the log. */
function batched(output) {
  const line = output.split('\n').find((each) => each.includes('"speed_tg"'));
  if (!line) throw new Error('llama-batched-bench printed no result');
  return JSON.parse(line.slice(line.indexOf('{'))).speed_tg;
}
