/** The text of a prompt in the order it came. Law: a reader sees every event once, from the first, whenever it starts. */
import type { TextEvent } from './types.ts';

export class EventLog {
  readonly #events: TextEvent[] = [];
  #waiting: (() => void)[] = [];
  #followed = false;

  /** Somebody reads it, or has. */
  get isFollowed(): boolean {
    return this.#followed;
  }

  push(event: TextEvent): void {
    if (event.delta === '') return;
    this.#events.push(event);
    this.#wake();
  }

  /** All events until `end` settles; where it rejects, the reader gets that error after the last event. */
  async *read(end: Promise<unknown>): AsyncGenerator<TextEvent, void> {
    this.#followed = true;
    const reading: { over: boolean; failure?: { error: unknown } } = { over: false };
    const settle = (failure?: { error: unknown }) => {
      Object.assign(reading, { over: true, failure });
      this.#wake();
    };
    end.then(
      () => settle(),
      (error) => settle({ error }),
    );
    for (let next = 0; ;) {
      while (next < this.#events.length) yield this.#events[next++]!;
      if (reading.failure) throw reading.failure.error;
      if (reading.over) return;
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resume of waiting) resume();
  }
}
