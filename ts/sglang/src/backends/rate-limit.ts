/** How many requests go out. Laws: they start in the order they were asked for; one that is aborted leaves the queue. */
import { setTimeout as wait } from 'node:timers/promises';
import { abortable } from '../lang/abort.ts';

export interface RateLimits {
  /** Most requests that are open at once. Default: no limit. */
  concurrency?: number;
  /** Most requests, repetitions included, that start within any minute. Default: no limit. */
  requestsPerMinute?: number;
}

const MINUTE_MS = 60_000;

export class RateLimit {
  readonly #concurrency: number;
  readonly #perWindow: number;
  readonly #windowMs: number;
  readonly #queue: (() => void)[] = [];
  #open = 0;
  /** When the last `#perWindow` requests started. */
  #starts: readonly number[] = [];
  /** Settles when the last one that waits for its start has it. */
  #line: Promise<void> = Promise.resolve();

  constructor({ concurrency = Infinity, requestsPerMinute = Infinity }: RateLimits = {}, windowMs = MINUTE_MS) {
    for (const [name, limit] of Object.entries({ concurrency, requestsPerMinute })) {
      if (!(limit === Infinity || (Number.isInteger(limit) && limit >= 1)))
        throw new RangeError(`${name}: expected a positive integer, got ${limit}`);
    }
    this.#concurrency = concurrency;
    this.#perWindow = requestsPerMinute;
    this.#windowMs = windowMs;
  }

  /** Waits until fewer than `concurrency` are open; the function it gives closes this one. */
  async enter(signal?: AbortSignal): Promise<() => void> {
    signal?.throwIfAborted();
    if (this.#open < this.#concurrency) this.#open++;
    else await this.#turn(signal);
    return () => {
      const next = this.#queue.shift();
      if (next) next();
      else this.#open--;
    };
  }

  /** Waits until a request may start. */
  async start(signal?: AbortSignal): Promise<void> {
    if (this.#perWindow === Infinity) return;
    const mine = this.#line.then(() => this.#due(signal));
    this.#line = mine.catch(() => {});
    return signal ? abortable(mine, signal) : mine;
  }

  async #due(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const due = (this.#starts.at(-this.#perWindow) ?? -Infinity) + this.#windowMs;
    while (performance.now() < due) await pause(Math.ceil(due - performance.now()), signal);
    this.#starts = [...this.#starts, performance.now()].slice(-this.#perWindow);
  }

  #turn(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const go = () => {
        signal?.removeEventListener('abort', leave);
        resolve();
      };
      const leave = () => {
        this.#queue.splice(this.#queue.indexOf(go), 1);
        reject(signal!.reason);
      };
      this.#queue.push(go);
      signal?.addEventListener('abort', leave, { once: true });
    });
  }
}

/** Waits; an abort is thrown as its reason. */
export async function pause(milliseconds: number, signal?: AbortSignal | null): Promise<void> {
  await wait(milliseconds, undefined, { signal: signal ?? undefined }).catch((error) => {
    throw signal?.aborted ? signal.reason : error;
  });
}
