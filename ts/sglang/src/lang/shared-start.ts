/**
 * What the prompts of a batch begin with, computed once before its rows go on. Laws: the beginning is found by running
 * the rows themselves up to their first generation, so no body runs twice; and no row waits for the work of another's
 * body: only rows count that come so far within one turn of the event loop.
 */
import type { Backend, Turn } from '../backends/backend.ts';
import { commonStart, plainText } from './prompt.ts';

/** In characters; computing less ahead is not worth a request. */
const LEAST = 64;

/** `backend`, whose first calls wait until their common beginning is computed. */
export function withSharedStart(backend: Backend, signal?: AbortSignal): Backend {
  if (!backend.warm) return backend;
  let arrived: (readonly Turn[])[] | undefined = [];
  let started: Promise<void> | undefined;
  const compute = async () => {
    await new Promise<void>((resolve) => setTimeout(resolve));
    const prompts = arrived!;
    arrived = undefined;
    const common = commonStart(prompts);
    if (prompts.length < 2 || plainText(common).length < LEAST) return;
    await backend.warm!(common, { signal }).catch(() => {});
  };
  const start = (turns: readonly Turn[]) => {
    arrived?.push(turns);
    return (started ??= compute());
  };
  return {
    kind: backend.kind,
    async *stream(turns, options) {
      await start(turns);
      yield* backend.stream(turns, options);
    },
    async select(turns, choices, options) {
      await start(turns);
      return backend.select(turns, choices, options);
    },
    async warm(turns, options) {
      await start(turns);
      await backend.warm!(turns, options);
    },
    ...(backend.render && { render: (turns: readonly Turn[]) => backend.render!(turns) }),
    ...(backend.flushCache && { flushCache: () => backend.flushCache!() }),
  };
}
