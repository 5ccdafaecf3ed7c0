/**
 * Runs as OpenTelemetry spans, where `@opentelemetry/api` is installed and somebody registered a provider. A run stands
 * under the span that is active when it starts. Law: prompts and answers stay here; only names, times and counts leave.
 */
import { createRequire } from 'node:module';
import type { Attributes, Context, Span } from '@opentelemetry/api';
import { version } from '../../package.json';
import { endOf, type RunObserver, type TraceSpan } from '../lang/trace.ts';
import { titleOf } from './format.ts';

type Api = typeof import('@opentelemetry/api');

let api: Api | null | undefined;

/** Starts the span of a run; at the run's end the spans of what it did follow. */
export const openTelemetry: RunObserver = (run) => {
  api = api === undefined ? installed() : api;
  const span = api?.trace.getTracer('sglang', version).startSpan(titleOf(run), { startTime: run.startMs });
  if (!api || !span?.isRecording()) return undefined;
  const inRun = api.trace.setSpan(api.context.active(), span);
  return () => finish(api!, span, run, inRun);
};

function installed(): Api | null {
  try {
    return createRequire(import.meta.url)('@opentelemetry/api') as Api;
  } catch {
    return null;
  }
}

function finish(otel: Api, span: Span, from: TraceSpan, context: Context): void {
  const tracer = otel.trace.getTracer('sglang', version);
  for (const child of from.children.filter(({ kind }) => kind !== 'text')) {
    const options = { startTime: child.startMs, attributes: attributesOf(child) };
    const inner = tracer.startSpan(titleOf(child), options, context);
    finish(otel, inner, child, otel.trace.setSpan(context, inner));
  }
  if (from.error !== undefined) span.setStatus({ code: otel.SpanStatusCode.ERROR, message: from.error });
  span.end(endOf(from));
}

/** Names are those of OpenTelemetry's conventions for generative AI, where it has one. */
function attributesOf({ kind, meta, firstMs, startMs }: TraceSpan): Attributes {
  if (!meta) return {};
  return {
    'gen_ai.operation.name': 'text_completion',
    'gen_ai.usage.input_tokens': meta.promptTokens,
    'gen_ai.usage.output_tokens': meta.completionTokens,
    'gen_ai.usage.cache_read.input_tokens': meta.cachedTokens,
    'gen_ai.response.finish_reasons': [meta.finishReason],
    ...(kind === 'gen' && firstMs !== undefined && { 'sglang.first_token_ms': firstMs - startMs }),
  };
}
