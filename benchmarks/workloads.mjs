/**
 * What is measured, one entry per workload. A workload is a list of phases, a phase a list of sessions: async functions
 * that ask for generations one after another. As many sessions are open at a time as there are streams, so load is
 * closed-loop, and a phase begins when the one before has ended. Prompts are made before the clock starts.
 *
 * @typedef {object} Request  greedy unless it has a temperature; EOS is ignored unless a schema ends it
 * @property {number[]} prompt
 * @property {number} maxTokens
 * @property {number} [temperature]
 * @property {number} [seed]
 * @property {{ properties: Record<string, any> }} [jsonSchema]
 * @property {'long' | 'short'} [after]  the prefix it follows, where two are compared
 *
 * @typedef {object} Answer
 * @property {number[]} outputIds
 * @property {number | null} cachedTokens  tokens of the prompt that were not computed again
 * @property {string} [text]               of a request with a schema
 *
 * @typedef {(generate: (request: Request) => Promise<Answer>) => Promise<unknown>} Session
 * @typedef {Record<string, number>} Size
 *
 * @typedef {object} Workload
 * @property {string} title
 * @property {number[]} streams  numbers of sessions at a time, each measured by itself
 * @property {Size} size         counts of requests and tokens, as the names say
 * @property {Size} quick        the same for `--quick`
 * @property {'output' | 'prefill' | 'decode'} rate  which tokens per second are its result, see `rates`
 * @property {string[][]} fields  who is measured with whom; the first of a field is ours, the others it is compared with
 * @property {boolean} [cold]    nothing is warmed up: the first token of a fresh process is what is looked at
 * @property {number} [cacheTokens]  tokens of KV cache that everyone gets; by default CACHE_TOKENS
 * @property {(size: Size) => number} contextLength  tokens that one stream needs room for
 * @property {(size: Size, encode: import('./prompts.mjs').Encode, streams: number) => Session[][]} phases
 */
import { distinctPrompts, opening, passage, shuffled } from './prompts.mjs';

/** Room for keys and values that every engine gets, in tokens. */
export const CACHE_TOKENS = 32_768;

/** Below this index are the prompts of W4; above, each workload counts its passages from its own thousand. */
const THOUSAND = 1000;

/** The rivals of whole workloads, each on the format that is its fastest in 4 bits. */
const servers = [['sglang', 'node-llama-cpp@q4_0', 'llama-server@q4_0', 'llama-server-unified@q4_0']];
const inProcess = [['sglang', 'node-llama-cpp', 'node-llama-cpp@q4_0']];
/** The kernels of the rivals in all formats; weights that are not quantized are compared with their like. */
const kernels = [
  [
    ...['sglang', 'roof', 'llama-bench', 'llama-bench@q4_0', 'llama-bench@q8_0'],
    ...['node-llama-cpp', 'node-llama-cpp@q4_0', 'transformers-js@onnx'],
  ],
  ['sglang@f16', 'llama-bench@f16'],
  ['sglang@bf16', 'llama-bench@bf16'],
];
const largeFields = ['large-q4_k_m', 'large-q8_0'].map((format) =>
  ['sglang', 'roof', 'llama-bench'].map((peer) => `${peer}@${format}`),
);

const ask = (prompt, maxTokens, rest) => (generate) => generate({ prompt, maxTokens, ...rest });
const each = (count, make) => Array.from({ length: count }, (_, i) => make(i));

/** The six fields of W5. */
const person = {
  type: 'object',
  properties: {
    name: { type: 'string', maxLength: 20 },
    trade: { enum: ['baker', 'miller', 'sailor', 'doctor', 'farmer'] },
    city: { type: 'string', maxLength: 20 },
    age: { type: 'integer', minimum: 0, maximum: 120 },
    children: { type: 'integer', minimum: 0, maximum: 20 },
    married: { type: 'boolean' },
  },
  required: ['name', 'trade', 'city', 'age', 'children', 'married'],
  additionalProperties: false,
};

/** @type {Record<string, Workload>} */
export const workloads = {
  W1: {
    title: 'few-shot: one prefix of about 1,500 tokens, 40 own, 16 out',
    streams: [16],
    size: { requests: 64, prefix: 1488, own: 40, tokens: 16 },
    quick: { requests: 8, prefix: 200, own: 20, tokens: 4 },
    rate: 'output',
    fields: servers,
    contextLength: ({ prefix, own, tokens }) => prefix + own + tokens,
    phases({ requests, prefix, own, tokens }, encode) {
      const examples = opening(encode, THOUSAND, prefix);
      return [each(requests, (i) => ask([...examples, ...passage(encode, THOUSAND + 1 + i, own)], tokens))];
    },
  },
  W2: {
    title: 'tree of thought: 8 roots of 300 tokens, 4 × 4 branches of 60, level by level, 32 out at each leaf',
    streams: [16],
    size: { roots: 8, root: 300, branch: 60, tokens: 32 },
    quick: { roots: 2, root: 60, branch: 20, tokens: 4 },
    rate: 'output',
    fields: servers,
    contextLength: ({ root, branch, tokens }) => root + 2 * branch + tokens,
    phases({ roots, root, branch, tokens }, encode) {
      let next = 2 * THOUSAND;
      const grow = (node) => each(4, () => [...node, ...passage(encode, next++, branch)]);
      const first = each(roots, () => opening(encode, next++, root));
      const second = first.flatMap(grow);
      const leaves = second.flatMap(grow);
      return [
        first.map((node) => ask(node, 1)),
        second.map((node) => ask(node, 1)),
        leaves.map((node) => ask(node, tokens)),
      ];
    },
  },
  W3: {
    title: 'multi-turn: 16 conversations of 4 turns of 120 tokens, 64 out, the whole history sent again',
    streams: [16],
    size: { conversations: 16, turns: 4, turn: 120, tokens: 64 },
    quick: { conversations: 2, turns: 2, turn: 40, tokens: 4 },
    rate: 'output',
    fields: servers,
    contextLength: ({ turns, turn, tokens }) => turns * (turn + tokens),
    phases({ conversations, turns, turn, tokens }, encode) {
      const says = (i, t) => (t ? passage : opening)(encode, 3 * THOUSAND + conversations * t + i, turn);
      return [
        each(conversations, (i) =>
          dialogue(
            each(turns, (t) => says(i, t)),
            tokens,
          ),
        ),
      ];
    },
  },
  W4: {
    title: 'independent requests, about 256 tokens in, 128 out',
    streams: [1, 8, 32],
    size: { requests: 32, tokens: 128 },
    quick: { requests: 2, tokens: 4 },
    rate: 'output',
    fields: servers,
    contextLength: ({ tokens }) => 384 + tokens,
    phases: ({ requests, tokens }, encode) => [
      distinctPrompts(requests).map((prompt) => ask(encode(prompt, true), tokens)),
    ],
  },
  W5: {
    title:
      'constrained: 16 requests for an object of six fields, and as many without a constraint, prompts computed before',
    streams: [1, 16],
    size: { requests: 16, tokens: 64, most: 160 },
    quick: { requests: 2, tokens: 4, most: 160 },
    rate: 'output',
    fields: servers,
    contextLength: ({ most }) => 384 + most,
    phases({ requests, tokens, most }, encode) {
      const prompts = distinctPrompts(requests).map((prompt) =>
        encode(`${prompt} we describe its hero in JSON:\n`, true),
      );
      const constrained = (prompt) => ask(prompt, most, { jsonSchema: person });
      const free = (maxTokens) => prompts.map((prompt) => ask(prompt, maxTokens));
      return [free(1), free(tokens), prompts.map(constrained)];
    },
  },
  W6: {
    title: 'agents: 16 of 5 steps of 32 tokens after 800 common ones, an observation of 60 tokens after each',
    streams: [16],
    size: { agents: 16, steps: 5, examples: 800, question: 40, observation: 60, tokens: 32 },
    quick: { agents: 2, steps: 2, examples: 60, question: 20, observation: 20, tokens: 4 },
    rate: 'output',
    fields: servers,
    contextLength: ({ steps, examples, question, observation, tokens }) =>
      examples + question + steps * (tokens + observation),
    phases({ agents, steps, examples, question, observation, tokens }, encode) {
      const common = opening(encode, 6 * THOUSAND, examples);
      const reads = (i, s) => passage(encode, 6 * THOUSAND + 1 + agents * s + i, s ? observation : question);
      const texts = (i) => each(steps, (s) => (s ? reads(i, s) : [...common, ...reads(i, s)]));
      return [each(agents, (i) => dialogue(texts(i), tokens))];
    },
  },
  W7: {
    title: 'self-consistency: 32 samples of one prompt of 512 tokens, 64 out',
    streams: [32],
    size: { samples: 32, prompt: 512, tokens: 64 },
    quick: { samples: 4, prompt: 60, tokens: 4 },
    rate: 'output',
    fields: servers,
    contextLength: ({ prompt, tokens }) => prompt + tokens,
    phases({ samples, prompt, tokens }, encode) {
      const question = opening(encode, 7 * THOUSAND, prompt);
      return [each(samples, (seed) => ask(question, tokens, { temperature: 0.8, seed }))];
    },
  },
  W8: {
    title: 'judge: 8 articles of 600 tokens, 6 questions about each, 32 out',
    streams: [16],
    size: { articles: 8, questions: 6, article: 600, question: 40, tokens: 32 },
    quick: { articles: 2, questions: 3, article: 60, question: 20, tokens: 4 },
    rate: 'output',
    fields: servers,
    contextLength: ({ article, question, tokens }) => article + question + tokens,
    phases({ articles, questions, article, question, tokens }, encode) {
      const asks = each(questions, (q) => passage(encode, 8 * THOUSAND + articles + q, question));
      const texts = each(articles, (a) => opening(encode, 8 * THOUSAND + a, article));
      return [texts.flatMap((text) => asks.map((asked) => ask([...text, ...asked], tokens)))];
    },
  },
  W9: {
    title: 'retrieval: 32 questions, each after 4 of 8 documents of 200 tokens in another order, 32 out',
    streams: [16],
    size: { requests: 32, documents: 8, document: 200, question: 40, tokens: 32 },
    quick: { requests: 4, documents: 5, document: 30, question: 20, tokens: 4 },
    rate: 'output',
    fields: servers,
    contextLength: ({ document, question, tokens }) => 5 * document + question + tokens,
    phases({ requests, documents, document, question, tokens }, encode) {
      const system = opening(encode, 9 * THOUSAND, document);
      const library = each(documents, (d) => passage(encode, 9 * THOUSAND + 1 + d, document));
      const reads = (i) => shuffled(library, i).slice(0, 4).flat();
      const asked = (i) => passage(encode, 9 * THOUSAND + 1 + documents + i, question);
      return [each(requests, (i) => ask([...system, ...reads(i), ...asked(i)], tokens))];
    },
  },
  'prefill-512': prefill('a prompt of 512 tokens', 512, kernels),
  'prefill-2048': prefill('a prompt of 2,048 tokens', 2048, kernels),
  decode: decode('one stream', [1], kernels),
  batched: decode(
    'several streams with prompts of their own',
    [4, 8, 16, 32],
    [kernels[0].filter((name) => !/^(roof|transformers)/.test(name))],
  ),
  'large-prefill': prefill('a prompt of 512 tokens, 1.1 B random weights', 512, largeFields),
  'large-decode': decode('one stream, 1.1 B random weights', [1], largeFields),
  'common-prefix': {
    title: 'decoding 32 streams after 50 tokens that they share, then after 2,000',
    streams: [32],
    size: { short: 50, long: 2000, own: 8, tokens: 64 },
    quick: { short: 10, long: 100, own: 8, tokens: 8 },
    rate: 'output',
    fields: [['sglang']],
    contextLength: ({ long, own, tokens }) => long + own + tokens,
    phases({ own, tokens, ...prefixes }, encode, count) {
      const follow = (prefix, after) =>
        each(count, (i) => ask([...prefix, ...passage(encode, 14 * THOUSAND + i, own)], tokens, { after }));
      return ['short', 'long'].flatMap((after, p) => {
        const prefix = opening(encode, 13 * THOUSAND + p, prefixes[after]);
        return [[ask(prefix, 1)], follow(prefix, after)];
      });
    },
  },
  'long-prompt': {
    title: 'a prompt of 4,000 tokens while 4 streams decode: the time between their tokens',
    streams: [5],
    size: { prompt: 32, long: 4000, tokens: 256, before: 32 },
    quick: { prompt: 32, long: 100, tokens: 16, before: 4 },
    rate: 'output',
    fields: servers,
    contextLength: ({ prompt, long, tokens }) => Math.max(prompt + tokens, long + 1),
    phases({ prompt, long, tokens, before }, encode) {
      const start = (i) => opening(encode, 15 * THOUSAND + i, prompt);
      const arrives = async (generate) => {
        await generate({ prompt: start(4), maxTokens: before });
        await generate({ prompt: opening(encode, 15 * THOUSAND + 5, long), maxTokens: 1 });
      };
      return [[...each(4, (i) => ask(start(i), tokens)), arrives]];
    },
  },
  cold: {
    title: 'a fresh process: load, memory, 8 tokens after 32',
    streams: [1],
    size: { prompt: 32, tokens: 8 },
    quick: { prompt: 32, tokens: 2 },
    rate: 'output',
    cold: true,
    cacheTokens: 2048,
    fields: [['sglang', 'sglang-generate', ...inProcess[0].slice(1), 'llama-server', 'llama-server@q4_0']],
    contextLength: () => 2048,
    phases: ({ prompt, tokens }) => [
      [
        ask(
          each(prompt, (i) => THOUSAND + i),
          tokens,
        ),
      ],
    ],
  },
};

/** Names for several workloads. */
export const groups = {
  W: Object.keys(workloads).filter((id) => /^W\d$/.test(id)),
  prefill: ['prefill-512', 'prefill-2048'],
  large: ['large-prefill', 'large-decode'],
};

/**
 * Prompts one at a time, one token out, so that time to first token is the time of the prompt.
 * @returns {Workload}
 */
function prefill(title, tokens, fields) {
  return {
    title,
    streams: [1],
    size: { requests: 3, prompt: tokens, tokens: 1 },
    quick: { requests: 1, prompt: 64, tokens: 1 },
    rate: 'prefill',
    cacheTokens: 8192,
    fields,
    contextLength: ({ prompt, tokens: out }) => prompt + out,
    phases: ({ requests, prompt, tokens: out }, encode) => [
      each(requests, (i) => ask(opening(encode, 11 * THOUSAND + i, prompt), out)),
    ],
  };
}

/**
 * As many prompts as streams, decoded together.
 * @returns {Workload}
 */
function decode(title, streams, fields) {
  return {
    title: `decoding: ${title}`,
    streams,
    size: { prompt: 32, tokens: 128 },
    quick: { prompt: 32, tokens: 8 },
    rate: 'decode',
    cacheTokens: 8192,
    fields,
    contextLength: ({ prompt, tokens }) => prompt + tokens,
    phases: ({ prompt, tokens }, encode, count) => [
      each(count, (i) => ask(opening(encode, 12 * THOUSAND + i, prompt), tokens)),
    ],
  };
}

/**
 * A conversation: all that was said and answered so far, then the next text.
 * @param {number[][]} texts
 * @returns {Session}
 */
function dialogue(texts, maxTokens) {
  return async (generate) => {
    let history = [];
    for (const text of texts) {
      const prompt = [...history, ...text];
      const { outputIds } = await generate({ prompt, maxTokens });
      history = [...prompt, ...outputIds];
    }
  };
}
