/** The snippets of `docs/guide/backends.md`, compiled and never run; `written.test.ts` holds the page to them. */
import type { LanguageModelV3 } from '@ai-sdk/provider';
import { generateText } from 'ai';
import { aiSdkBackend, createSglang } from '../../src/backends/ai-sdk.ts';
import { fn, gen, OpenAI, Speculative, type Engine } from '../../src/index.ts';

declare const apiKey: string, organization: string, project: string;
declare const engine: Engine;
declare const mistral: (name: string) => LanguageModelV3;

new OpenAI('gpt-4o-mini', {
  ...{ apiKey, organization, project }, // default: OPENAI_API_KEY, OPENAI_ORG_ID, OPENAI_PROJECT_ID
  baseURL: 'https://…/v1', // default: OPENAI_BASE_URL, then OpenAI itself
  ...{ maxRetries: 2, retryDelay: 500 }, // 429, 5xx and lost connections, doubling, or when `Retry-After` says
  ...{ concurrency: 8, requestsPerMinute: 500 }, // more wait in line; no limit by default
  extensions: true, // the server knows SGLang's fields: top_k, min_p, regex, ebnf, continue_final_message, …
});

const backend = new Speculative(new OpenAI('gpt-3.5-turbo-instruct'), { tokens: 64 });
const form = fn((s) => s`Name: ${gen('name', { stop: '\n' })}\nJob: ${gen('job', { stop: '\n' })}\n`);
const state = await form.run({}, { backend });
state.meta('job').speculated; // true if it needed no call
backend.stats; // { calls, savedCalls }

const theirs = aiSdkBackend(mistral('mistral-small-latest')); // a model of theirs runs our programs
await form.run({}, { backend: theirs });
await generateText({ model: createSglang(engine)('local'), prompt: 'Hello!' }); // and ours theirs
