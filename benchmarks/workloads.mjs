/**
 * What is measured, one row per workload. A workload is a list of sessions: each is an async function that asks for
 * generations one after another. As many sessions are open at a time as there are streams, so load is closed-loop.
 *
 * @typedef {{ prompt: string, maxTokens: number }} Request
 * @typedef {{ promptTokens: number, outputIds: number[] }} Answer
 * @typedef {(generate: (request: Request) => Promise<Answer>) => Promise<unknown>} Session
 * @typedef {{ requests: number, tokens: number }} Size  generations in all, and output tokens of each
 * @typedef {object} Workload
 * @property {string} title
 * @property {number[]} streams  numbers of sessions at a time, each measured by itself
 * @property {Size} size
 * @property {(size: Size) => number} contextLength  tokens that one stream needs room for
 * @property {(size: Size) => Session[]} sessions
 */
import { distinctPrompts } from './prompts.mjs';

/** @type {Record<string, Workload>} */
export const workloads = {
  W4: {
    title: 'independent requests, about 256 tokens in, 128 out',
    streams: [1, 8, 32],
    size: { requests: 32, tokens: 128 },
    contextLength: ({ tokens }) => 384 + tokens,
    sessions: ({ requests, tokens }) =>
      distinctPrompts(requests).map((prompt) => (generate) => generate({ prompt, maxTokens: tokens })),
  },
};
