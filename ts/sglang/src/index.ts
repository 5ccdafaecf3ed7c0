/**
 * The public API: the language, its backends and the engine. Law: what is not exported here may change at any time.
 *
 * @module sglang
 */
import { progressBar } from './cli/progress.ts';
import { setProgressReporter } from './lang/batch.ts';
import { setRunObserver } from './lang/trace.ts';
import { openTelemetry } from './trace/open-telemetry.ts';

setProgressReporter(progressBar);
setRunObserver(openTelemetry);

export { fn, setDefaultBackend, flushCache } from './lang/program.ts';
export { assistant, gen, genInt, genString, image, select, system, user } from './lang/primitives.ts';
export { endOf, Trace, totalsOf, type TraceKind, type TraceSpan, type TraceTotals } from './lang/trace.ts';
export { formatTrace } from './trace/text.ts';
export { traceHtml } from './trace/html.ts';
export { nearestChoice } from './lang/choices.ts';
export { plainText } from './lang/prompt.ts';
export { BatchError, ProgramError } from './lang/program-error.ts';
export { OpenAI, type OpenAIOptions } from './backends/openai.ts';
export { Anthropic, type AnthropicOptions } from './backends/anthropic.ts';
export { Speculative, type SpeculativeOptions } from './backends/speculative.ts';
export { RuntimeEndpoint, type RuntimeEndpointOptions } from './backends/runtime-endpoint.ts';
export { FakeBackend, type FakeCall, type FakeOptions, type FakeReply } from './backends/fake.ts';
export { engineBackend } from './backends/engine.ts';
export { Engine, type EngineOptions, type LoadProgress } from './engine/engine.ts';
export { SglangError, type SglangErrorCode } from './engine/errors.ts';
export type * from './engine/types.ts';
export type * from './backends/backend.ts';
export type {
  BatchOptions,
  Expr,
  Forks,
  GenOptions,
  Message,
  Meta,
  Part,
  Program,
  Result,
  Run,
  RunOptions,
  SamplingOptions,
  State,
  TextEvent,
} from './lang/types.ts';
