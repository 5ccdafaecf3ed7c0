/**
 * Server-sent events. What fails before the first event is answered with an HTTP status, what fails later as an event;
 * the last event is always `[DONE]`. Nothing is read ahead of a client that does not keep up.
 */
import type { Response } from 'express';
import type { Call } from './calls.ts';
import { inTermsOf, problemOf } from './problem.ts';

export async function streamEvents(call: Call, events: AsyncGenerator<unknown>): Promise<void> {
  const { res } = call;
  let next = await events.next();
  res.writeHead(200, { 'Content-Type': 'text/event-stream; charset=utf-8', 'Cache-Control': 'no-cache' });
  try {
    for (; !next.done && !res.destroyed; next = await events.next()) await writeEvent(res, JSON.stringify(next.value));
  } catch (error) {
    if (call.signal.aborted) return;
    const problem = problemOf(inTermsOf(call.fieldName, error));
    if (!problem.expected) call.options.logger?.error({ err: error }, 'stream failed');
    await writeEvent(res, JSON.stringify(problem.body));
  } finally {
    await events.return(undefined);
  }
  await writeEvent(res, '[DONE]');
  res.end();
}

async function writeEvent(res: Response, text: string): Promise<void> {
  if (res.destroyed || res.write(`data: ${text}\n\n`)) return;
  await new Promise<void>((resolve) => {
    const done = () => {
      res.off('drain', done).off('close', done);
      resolve();
    };
    res.on('drain', done).on('close', done);
  });
}

/** Pieces of several sources as they come, each with the position of its source; one piece of each is read ahead. */
export async function* merge<T>(sources: readonly AsyncIterable<T>[]): AsyncGenerator<[source: number, piece: T]> {
  const iterators = sources.map((source) => source[Symbol.asyncIterator]());
  const arrived: Promise<[source: number, next: IteratorResult<T>]>[] = [];
  let wake = () => {};
  const read = (i: number) => {
    const next = iterators[i]!.next().then((next): [number, typeof next] => [i, next]);
    const here = () => {
      arrived.push(next);
      wake();
    };
    next.then(here, here);
  };
  iterators.forEach((_, i) => read(i));
  for (let open = iterators.length; open > 0;) {
    while (arrived.length === 0) await new Promise<void>((resolve) => (wake = resolve));
    const [i, next] = await arrived.shift()!;
    if (next.done) open--;
    else {
      read(i);
      yield [i, next.value];
    }
  }
}
