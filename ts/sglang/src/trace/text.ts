/** A trace as lines for a terminal: the tree at the left, a time line in the middle, numbers and text at the right. */
import { endOf, totalsOf, type Trace, type TraceSpan } from '../lang/trace.ts';
import { percent, seconds, titleOf } from './format.ts';

const BAR_CELLS = 24;
const MAX_TEXT = 40;

interface Row {
  span: TraceSpan;
  label: string;
}

/** One block of lines per run; what programs wrote themselves is left out. */
export function formatTrace({ runs }: Trace): string {
  return runs.map(formatRun).join('\n');
}

function formatRun(run: TraceSpan): string {
  const rows = [{ span: run, label: titleOf(run) }, ...rowsBelow(run, '')];
  const width = Math.max(...rows.map(({ label }) => label.length));
  const lines = rows.map(({ span, label }) =>
    [label.padEnd(width), bar(span, run), ...numbers(span), quoted(span)].join('  ').trimEnd(),
  );
  return `${lines.join('\n')}\n`;
}

function rowsBelow({ children }: TraceSpan, indent: string): Row[] {
  const shown = children.filter(({ kind }) => kind !== 'text');
  return shown.flatMap((span, i) => {
    const isLast = i === shown.length - 1;
    const own = { span, label: `${indent}${isLast ? '└ ' : '├ '}${titleOf(span)}` };
    return [own, ...rowsBelow(span, `${indent}${isLast ? '  ' : '│ '}`)];
  });
}

function bar(span: TraceSpan, run: TraceSpan): string {
  const cellMs = Math.max(endOf(run) - run.startMs, 1e-6) / BAR_CELLS;
  const cell = (ms: number) => Math.min(Math.max(Math.floor((ms - run.startMs) / cellMs), 0), BAR_CELLS - 1);
  const [from, to] = [cell(span.startMs), cell(endOf(span))];
  return `${'·'.repeat(from)}${'█'.repeat(to - from + 1)}${'·'.repeat(BAR_CELLS - 1 - to)}`;
}

function numbers(span: TraceSpan): string[] {
  const { calls, promptTokens, cachedTokens, completionTokens } = totalsOf(span);
  const cached = promptTokens > 0 ? `(${percent(cachedTokens / promptTokens)} cached)` : '';
  const tokens = calls > 0 ? `in ${promptTokens} ${cached}`.trimEnd().padEnd(22) + `out ${completionTokens}` : '';
  return [seconds(endOf(span) - span.startMs).padStart(8), tokens.padEnd(30)];
}

function quoted({ kind, text, error }: TraceSpan): string {
  if (error !== undefined) return `✗ ${error}`;
  const short = text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT - 1)}…` : text;
  return kind === 'gen' || kind === 'select' ? JSON.stringify(short) : short;
}
