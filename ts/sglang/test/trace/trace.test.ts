/** The tree of a run: what it holds, in which order, and what it adds up to. */
import test from 'ava';
import {
  endOf,
  FakeBackend,
  fn,
  gen,
  select,
  Speculative,
  totalsOf,
  Trace,
  traceHtml,
  type TraceSpan,
} from '../../src/index.ts';

const inner = fn(function summarize(s) {
  return s.user`Sum up.`.assistant(gen('summary'));
});
const talk = fn(async function talk(s, { topic }: { topic: string }) {
  const head = s.system`Be brief.`.user(`About ${topic}.`).assistant('Well,', gen('answer'));
  const [a, b] = head.fork(2);
  await Promise.all([a.user`One?`.assistant(gen('more')), b.user`Two?`.assistant(select('pick', ['x', 'y']))]);
  return inner(head)`End.`;
});

/** A line per span: role, kind, name and text. */
function outline({ kind, name, role, text, children }: TraceSpan, indent = ''): string {
  const own = [role ?? '-', kind, name, JSON.stringify(text)].filter((part) => part !== '').join(' ');
  return `${indent}${own}\n${children.map((child) => outline(child, `${indent}  `)).join('')}`;
}

test('a run is told in order, with its branches and calls', async (t) => {
  const replies = [
    ['Well,', ' yes.'],
    ['One?', 'A'],
    ['Two?', 'y'],
    ['Sum up.', 'All.'],
  ] as const;
  const trace = new Trace();
  await talk.run({ topic: 'seas' }, { backend: new FakeBackend({ replies }), trace });
  t.is(
    outline(trace.runs[0]!),
    `- run talk "{\\"topic\\":\\"seas\\"}"
  system text "Be brief."
  user text "About seas."
  assistant text "Well,"
  assistant gen answer " yes."
  - warm ""
  - branch 1 ""
    user text "One?"
    assistant gen more "A"
  - branch 2 ""
    user text "Two?"
    assistant select pick "y"
  - call summarize ""
    user text "Sum up."
    assistant gen summary "All."
  - text "End."
`,
  );
});

function everySpan(span: TraceSpan): TraceSpan[] {
  return [span, ...span.children.flatMap(everySpan)];
}

test('spans lie within what holds them, and counts add up to those of the variables', async (t) => {
  const trace = new Trace();
  const state = await talk.run({ topic: 'seas' }, { backend: new FakeBackend(), trace });
  const [run] = trace.runs;
  for (const span of everySpan(run!)) {
    t.true(span.children.every((child) => child.startMs >= span.startMs && endOf(child) <= endOf(run!)));
    if (span.firstMs !== undefined) t.true(span.startMs <= span.firstMs && span.firstMs <= endOf(span));
  }
  const generated = everySpan(run!).filter(({ kind }) => kind === 'gen');
  t.is(totalsOf(run!).calls, generated.length + 1);
  t.deepEqual(generated.find(({ name }) => name === 'answer')!.meta, state.meta('answer'));
  t.is(
    totalsOf(run!).completionTokens,
    generated.reduce((sum, { meta }) => sum + meta!.completionTokens, 0),
  );
});

test('a failure is told where it happened and on everything around it', async (t) => {
  const trace = new Trace();
  const backend = new FakeBackend({ replies: [['Sum up.', new Error('out of ink')]] });
  await t.throwsAsync(async () => talk.run({ topic: 'x' }, { backend, trace }));
  const failed = everySpan(trace.runs[0]!).filter(({ error }) => error !== undefined);
  t.deepEqual(
    failed.map(({ kind }) => kind),
    ['run', 'call', 'gen'],
  );
  t.true(failed.every(({ error }) => error!.includes('out of ink')));
});

test('an aborted run leaves no span open', async (t) => {
  const trace = new Trace();
  const never = new FakeBackend({ replies: [['About', () => new Promise<string>(() => {})]] });
  const run = talk.run({ topic: 'x' }, { backend: never, trace });
  await new Promise(setImmediate);
  run.abort(new Error('enough'));
  await t.throwsAsync(async () => run);
  const left = everySpan(trace.runs[0]!).filter(({ kind, endMs }) => kind === 'gen' && endMs === undefined);
  t.deepEqual(left, []);
  t.is(trace.runs[0]!.error, 'enough');
});

test('what was generated ahead is not counted as a call', async (t) => {
  const trace = new Trace();
  const replies = [['Name:', ' Ada\nJob: engineer\n']] as const;
  const form = fn((s) => s`Name:${gen('name', { stop: '\n' })}\nJob:${gen('job', { stop: '\n' })}`);
  await form.run({}, { backend: new Speculative(new FakeBackend({ replies })), trace });
  t.is(everySpan(trace.runs[0]!).filter(({ kind }) => kind === 'gen').length, 2);
  t.is(totalsOf(trace.runs[0]!).calls, 1);
  t.regex(traceHtml(trace), /generated ahead by an earlier call/);
});

test('a batch is a run per row', async (t) => {
  const trace = new Trace();
  await talk.runBatch([{ topic: 'a' }, { topic: 'b' }], { backend: new FakeBackend(), trace });
  t.is(trace.runs.length, 2);
});
