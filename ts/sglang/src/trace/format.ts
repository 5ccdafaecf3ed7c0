/** How the views of a trace write names and numbers. */
import type { TraceSpan } from '../lang/trace.ts';

/** `gen answer`, `branch 2`. */
export function titleOf({ kind, name }: TraceSpan): string {
  return `${kind} ${name}`.trimEnd();
}

/** Milliseconds below a second, seconds above. */
export function seconds(ms: number): string {
  return ms < 1000 ? `${ms.toFixed(ms < 10 ? 1 : 0)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

export function percent(ratio: number): string {
  return `${Math.round(ratio * 100)} %`;
}
