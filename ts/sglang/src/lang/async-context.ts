/**
 * What is known to all that a function does, across its waits. Where the platform cannot tell (browsers), only until
 * its first wait.
 */
export interface AsyncContext<T> {
  run<R>(value: T, action: () => R): R;
  getStore(): T | undefined;
}

type Builtins = { process?: { getBuiltinModule?(id: string): { AsyncLocalStorage: new () => AsyncContext<never> } } };

export function asyncContext<T>(): AsyncContext<T> {
  const builtin = (globalThis as Builtins).process?.getBuiltinModule?.('node:async_hooks');
  return builtin ? (new builtin.AsyncLocalStorage() as AsyncContext<T>) : new UntilWait<T>();
}

class UntilWait<T> implements AsyncContext<T> {
  #value: T | undefined;

  run<R>(value: T, action: () => R): R {
    const before = this.#value;
    this.#value = value;
    try {
      return action();
    } finally {
      this.#value = before;
    }
  }

  getStore(): T | undefined {
    return this.#value;
  }
}
