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

/** `promise`, or a rejection with the signal's reason, whichever comes first. */
export async function abortable<T>(promise: PromiseLike<T>, signal: AbortSignal): Promise<T> {
  const { aborted, forget } = rejectionOf(signal);
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    forget();
  }
}

/** The pieces of `source` until the signal; the source is closed in any case. */
export async function* abortablePieces<T>(source: AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T, void> {
  const iterator = source[Symbol.asyncIterator]();
  const { aborted, forget } = rejectionOf(signal);
  try {
    for (;;) {
      const step = await Promise.race([iterator.next(), aborted]);
      if (step.done) return;
      yield step.value;
    }
  } finally {
    forget();
    iterator.return?.().then(undefined, () => {});
  }
}

function rejectionOf(signal: AbortSignal): { aborted: Promise<never>; forget: () => void } {
  let forget = () => {};
  const aborted = new Promise<never>((_, reject) => {
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) return onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    forget = () => signal.removeEventListener('abort', onAbort);
  });
  aborted.catch(() => {});
  return { aborted, forget };
}
