/** Waiting that ends with a signal. Law: after the signal nothing waits, even for a source that does not heed it. */

const sourcesOf = new WeakMap<AbortSignal, readonly AbortSignal[]>();

/**
 * Aborts with the first of `signals`. `AbortSignal.any` alone lets go of its sources (Node 20): a timeout that nothing
 * else holds would be collected as garbage and never come.
 */
export function anySignal(...signals: readonly (AbortSignal | undefined)[]): AbortSignal {
  const sources = signals.filter((signal) => signal !== undefined);
  const either = AbortSignal.any(sources);
  sourcesOf.set(either, sources);
  return either;
}

/** `promise`, or a rejection with the signal's reason, whichever comes first. Nothing of it stays with the signal. */
export async function abortable<T>(promise: PromiseLike<T>, signal: AbortSignal): Promise<T> {
  let onAbort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** The pieces of `source` until the signal; the source is closed in any case. */
export async function* abortablePieces<T>(source: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T, void> {
  const iterator = source[Symbol.asyncIterator]();
  try {
    for (;;) {
      const step = await abortable(iterator.next(), signal);
      if (step.done) return;
      yield step.value;
    }
  } finally {
    iterator.return?.().then(undefined, () => {});
  }
}
