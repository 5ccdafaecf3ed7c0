/** Runs as spans of the real OpenTelemetry SDK. */
import { context, ROOT_CONTEXT, SpanStatusCode, trace, type ContextManager } from '@opentelemetry/api';
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';
import test from 'ava';
import { FakeBackend, fn, gen } from '../../src/index.ts';

const exporter = new InMemorySpanExporter();
trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));

const ask = fn(function ask(s, { q }: { q: string }) {
  const [a] = s.user(q).assistant(gen('answer')).fork(1);
  return a.user`More.`.assistant(gen('more'));
});

test.beforeEach(() => exporter.reset());

test.serial('spans form the tree of the run, with times and counts and without texts', async (t) => {
  const state = await ask.run({ q: 'secret' }, { backend: new FakeBackend() });
  const spans = exporter.getFinishedSpans();
  const parentOf = (name: string) => {
    const { parentSpanContext } = spans.find((span) => span.name === name)!;
    return spans.find((span) => span.spanContext().spanId === parentSpanContext?.spanId)?.name;
  };
  t.deepEqual(spans.map(({ name }) => name).sort(), ['branch 1', 'gen answer', 'gen more', 'run ask']);
  t.deepEqual([parentOf('gen more'), parentOf('branch 1'), parentOf('gen answer')], ['branch 1', 'run ask', 'run ask']);
  const { attributes, startTime, endTime } = spans.find(({ name }) => name === 'gen answer')!;
  t.is(attributes['gen_ai.usage.output_tokens'], state.meta('answer').completionTokens);
  t.true(endTime[0] > startTime[0] || endTime[1] >= startTime[1]);
  t.false(JSON.stringify(spans.map((span) => span.attributes)).includes('secret'));
});

test.serial('a run stands under the active span', async (t) => {
  const outer = trace.getTracer('test').startSpan('request');
  const active = trace.setSpan(ROOT_CONTEXT, outer);
  const inside: ContextManager['with'] = (_context, body, self, ...args) => body.apply(self, args);
  const manager: ContextManager = {
    active: () => active,
    with: inside,
    bind: (_context, target) => target,
    enable: () => manager,
    disable: () => manager,
  };
  context.setGlobalContextManager(manager);
  await ask.run({ q: 'x' }, { backend: new FakeBackend() });
  const run = exporter.getFinishedSpans().find(({ name }) => name === 'run ask')!;
  t.is(run.parentSpanContext?.spanId, outer.spanContext().spanId);
});

test.serial('a failed run is a failed span', async (t) => {
  const backend = new FakeBackend({ replies: [['x', new Error('out of ink')]] });
  await t.throwsAsync(async () => ask.run({ q: 'x' }, { backend }));
  const run = exporter.getFinishedSpans().find(({ name }) => name === 'run ask')!;
  t.is(run.status.code, SpanStatusCode.ERROR);
  t.regex(run.status.message!, /out of ink/);
});
