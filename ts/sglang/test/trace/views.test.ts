/** What is shown of a trace: in a terminal, and as a page. */
import test from 'ava';
import { formatTrace, Trace, traceHtml, type TraceSpan } from '../../src/index.ts';

const leaf = { role: null, text: '', children: [] };
const meta = { promptTokens: 40, cachedTokens: 30, completionTokens: 8, finishReason: 'stop' };

function traceOf(...children: TraceSpan[]): Trace {
  const trace = new Trace();
  trace.runs.push({ ...leaf, kind: 'run', name: 'talk', startMs: 1000, endMs: 3400, children });
  return trace;
}

const answer: TraceSpan = {
  ...leaf,
  ...{ kind: 'gen', name: 'answer', role: 'assistant', startMs: 1000, firstMs: 1200, endMs: 2200 },
  text: 'Yes,\nindeed. And a long text is cut so that it fits.',
  meta,
};
const failed: TraceSpan = { ...leaf, kind: 'gen', name: 'more', startMs: 2200, endMs: 3400, error: 'out of ink' };
const branch: TraceSpan = { ...leaf, kind: 'branch', name: '1', startMs: 2200, children: [failed] };
const text: TraceSpan = { ...leaf, kind: 'text', name: '', role: 'user', startMs: 1000, text: 'Is it?' };

test('in a terminal: a tree, a time line, counts', (t) => {
  t.is(
    formatTrace(traceOf(text, answer, branch)),
    `run talk      ████████████████████████    2.40 s  in 40 (75 % cached)   out 8
├ gen answer  █████████████···········    1.20 s  in 40 (75 % cached)   out 8     "Yes,\\nindeed. And a long text is cut so …"
└ branch 1    ············████████████    1.20 s
  └ gen more  ············████████████    1.20 s                                  ✗ out of ink
`,
  );
});

test('a page loads nothing, and what a model writes cannot run in it', (t) => {
  const evil = { ...answer, text: '</pre><script>alert(1)</script><img src=x onerror=alert(2)>' };
  const page = traceHtml(traceOf(text, evil, branch), 'A & B');
  t.notRegex(page, /<(script|img|link|iframe)|<[^>]* (src|href|on\w+)=|url\(|@import/);
  t.regex(page, /&#60;script&#62;/);
  t.regex(page, /<title>A &#38; B<\/title>/);
  t.regex(page, /75 %/);
  t.regex(page, /out of ink/);
});

test('a trace without runs is an empty page and no line', (t) => {
  t.is(formatTrace(new Trace()), '');
  t.regex(traceHtml(new Trace()), /0\.0 ms/);
});
