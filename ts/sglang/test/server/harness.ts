/** A server over a fake engine on a free port, stopped at the end of the test, and short ways to talk to it. */
import type { ExecutionContext } from 'ava';
import type { ServeOptions } from '../../src/server/serve.ts';
import { serve } from '../../src/server/serve.ts';
import { FakeEngine } from './fake-engine.ts';

export interface Answer {
  status: number;
  headers: Headers;
  // The tests look into answers of every shape.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  json: any;
}

export async function startServer(t: ExecutionContext, options: ServeOptions = {}, engine = new FakeEngine()) {
  const server = await serve(engine, { port: 0, ...options });
  t.teardown(() => server.stop(0));
  const { url } = server;
  const ask = async (path: string, init?: RequestInit): Promise<Answer> => {
    const response = await fetch(url + path, init);
    const text = await response.text();
    return {
      status: response.status,
      headers: response.headers,
      json: text.startsWith('{') || text.startsWith('[') ? JSON.parse(text) : text,
    };
  };
  const headers = { 'content-type': 'application/json; charset=utf-8' };
  const post = (path: string, body: unknown) => ask(path, { method: 'POST', headers, body: JSON.stringify(body) });
  const events = async (path: string, body: unknown) => {
    const response = await fetch(url + path, { method: 'POST', headers, body: JSON.stringify(body) });
    return eventsOf(await response.text());
  };
  return { url, engine, server, ask, post, events };
}

/** The `data:` lines of a stream; the last must be `[DONE]` and is left out. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export function eventsOf(text: string): any[] {
  const lines = text.split('\n\n').filter((line) => line !== '');
  if (lines.pop() !== 'data: [DONE]') throw new Error(`a stream without [DONE]: ${text.slice(-200)}`);
  return lines.map((line) => JSON.parse(line.replace(/^data: /, '')) as unknown);
}

/** Waits until `condition` holds; fails the test after five seconds. */
export async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 500 && !condition(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
  if (!condition()) throw new Error(`never true: ${condition.toString()}`);
}
