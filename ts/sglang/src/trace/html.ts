/**
 * A trace as one HTML page. Laws: the page loads nothing and runs no script; text of programs and models is escaped, so
 * it can neither break the page nor run in it.
 */
import { endOf, totalsOf, type Trace, type TraceSpan } from '../lang/trace.ts';
import { percent, seconds, titleOf } from './format.ts';
import { style } from './style.ts';

/** More runs than this start closed. */
const MAX_OPEN_RUNS = 3;

/** The page, ready to be written to a file. */
export function traceHtml({ runs }: Trace, title = 'Trace'): string {
  const open = runs.length <= MAX_OPEN_RUNS;
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(title)}</title>
<style>${style}</style>
<h1>${escaped(title)}</h1>
${summary(runs)}
${runs.length > 0 ? tree(runs, open) : ''}
</html>
`;
}

function summary(runs: readonly TraceSpan[]): string {
  const all: TraceSpan = { kind: 'run', name: '', role: null, startMs: 0, text: '', children: [...runs] };
  const { calls, promptTokens, cachedTokens, completionTokens } = totalsOf(all);
  const wallMs = Math.max(...runs.map(endOf)) - Math.min(...runs.map(({ startMs }) => startMs));
  const cards: [string, string][] = [
    [seconds(runs.length > 0 ? wallMs : 0), 'from start to end'],
    [String(runs.length), runs.length === 1 ? 'run' : 'runs'],
    [String(calls), 'calls of the model'],
    [String(promptTokens), 'prompt tokens'],
    [percent(promptTokens > 0 ? cachedTokens / promptTokens : 0), 'of them from the cache'],
    [String(completionTokens), 'tokens generated'],
  ];
  return `<dl class="cards">${cards.map(([value, name]) => `<div><dd>${value}</dd><dt>${name}</dt></div>`).join('')}</dl>`;
}

/** Times from the start of the first run to the end of the last. */
interface Range {
  startMs: number;
  wholeMs: number;
}

function tree(runs: readonly TraceSpan[], open: boolean): string {
  const time = 'time: <i class="prefill">prompt</i> <i class="decode">text</i>';
  const head = ['', time, 'took', 'first', 'in', 'cached', 'out'].map((name) => `<span>${name}</span>`).join('');
  const startMs = Math.min(...runs.map((run) => run.startMs));
  const range = { startMs, wholeMs: Math.max(...runs.map(endOf), startMs + 1e-6) - startMs };
  const rows = runs.map((run) => node(run, range, 0, open || run.error !== undefined));
  return `<section><div class="row head">${head}</div>${rows.join('\n')}</section>`;
}

function node(span: TraceSpan, range: Range, depth: number, open: boolean): string {
  const opens = (child: TraceSpan) => child.children.length > 0 || child.error !== undefined;
  const inner = span.children.map((child) => node(child, range, depth + 1, opens(child))).join('');
  const body = span.kind === 'text' || span.meta || span.error !== undefined ? details(span, depth) : '';
  const row = `<summary class="row" style="--depth:${depth}">${cells(span, range)}</summary>`;
  return `<details class="${span.kind}${span.error === undefined ? '' : ' failed'}"${open ? ' open' : ''}>${row}${body}${inner}</details>`;
}

function cells(span: TraceSpan, range: Range): string {
  const { calls, promptTokens, cachedTokens, completionTokens } = totalsOf(span);
  const label = `<span class="label">${name(span)} <q>${escaped(span.text)}</q></span>`;
  if (span.kind === 'text') return label;
  const first = span.firstMs !== undefined && span.kind === 'gen' ? seconds(span.firstMs - span.startMs) : '';
  const ratio = promptTokens > 0 ? cachedTokens / promptTokens : 0;
  const tokens = calls > 0 ? [`${promptTokens}`, meter(ratio), `${completionTokens}`] : ['', '', ''];
  const numbers = [seconds(endOf(span) - span.startMs), first, ...tokens].map((cell) => `<span>${cell}</span>`);
  return `${label}${bar(span, range)}${numbers.join('')}`;
}

function name(span: TraceSpan): string {
  const role = span.role === null ? '' : `<i class="role">${span.role}</i> `;
  return span.kind === 'text' ? role : `${role}<b>${escaped(titleOf(span))}</b>`;
}

/** The part before the first piece of text, which computes the prompt, is lighter. */
function bar(span: TraceSpan, { startMs, wholeMs }: Range): string {
  const share = (ms: number) => `${((ms / wholeMs) * 100).toFixed(2)}%`;
  const [start, end] = [span.startMs, endOf(span)];
  const first = Math.min(span.firstMs ?? end, end);
  const part = (kind: string, from: number, to: number) =>
    `<i class="${kind}" style="left:${share(from - startMs)};width:${share(to - from)}"></i>`;
  const parts = span.meta ? part('prefill', start, first) + part('decode', first, end) : part('span', start, end);
  return `<span class="bar">${parts}</span>`;
}

function meter(ratio: number): string {
  return `<span class="meter" style="--ratio:${percent(ratio).replace(' ', '')}">${percent(ratio)}</span>`;
}

function details({ text, meta, error }: TraceSpan, depth: number): string {
  const notes = [
    ...(meta ? [`finished by ${meta.finishReason}`] : []),
    ...(meta?.speculated ? ['generated ahead by an earlier call'] : []),
    ...(meta?.scores ? [`scores ${meta.scores.map((score) => score.toFixed(3)).join(', ')}`] : []),
  ];
  const problem = error === undefined ? '' : `<p class="error">${escaped(error)}</p>`;
  const note = notes.length > 0 ? `<p>${escaped(notes.join('; '))}</p>` : '';
  const shown = text === '' ? '' : `<pre>${escaped(text)}</pre>`;
  return `<div class="body" style="--depth:${depth}">${problem}${shown}${note}</div>`;
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}
