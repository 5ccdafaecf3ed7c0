/** An HTTP server for tests: it answers as told and keeps what it was asked. */
import type { ExecutionContext } from 'ava';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Asked {
  method: string;
  path: string;
  headers: IncomingHttpHeaders;
  body: any;
  /** Resolves when the client hangs up before the answer is over. */
  gone: Promise<void>;
  /** Resolves when the answer is over, in either way. */
  closed: Promise<void>;
}

export interface Answer {
  status?: number;
  headers?: Record<string, string>;
  /** Sent as JSON. */
  json?: unknown;
  /** Sent as server-sent events, each as JSON unless it is a string. */
  events?: readonly unknown[];
  /** Sent as lines of JSON. */
  lines?: readonly unknown[];
  /** The `event` fields of `events`. */
  eventNames?: readonly string[];
  /** Leaves the connection open after what was sent. */
  hang?: boolean;
}

export interface ScriptedServer {
  url: string;
  asked: Asked[];
}

/** Starts a server that lives as long as the test. */
export async function scriptedServer(
  t: ExecutionContext,
  answer: (asked: Asked, nth: number) => Answer | Promise<Answer>,
): Promise<ScriptedServer> {
  const asked: Asked[] = [];
  const server = createServer(async (request, response) => {
    let text = '';
    for await (const chunk of request) text += chunk;
    const gone = new Promise<void>((resolve) => response.on('close', () => response.writableEnded || resolve()));
    const closed = new Promise<void>((resolve) => response.on('close', resolve));
    const { method = '', url: path = '', headers } = request;
    const one: Asked = { method, path, headers, body: text === '' ? undefined : JSON.parse(text), gone, closed };
    asked.push(one);
    const {
      status = 200,
      headers: own = {},
      json,
      events,
      eventNames,
      lines = [],
      hang,
    } = await answer(one, asked.length - 1);
    response.writeHead(status, { 'content-type': events ? 'text/event-stream' : 'application/json', ...own });
    for (const [i, event] of (events ?? []).entries())
      response.write(
        `${eventNames ? `event: ${eventNames[i]}\n` : ''}data: ${typeof event === 'string' ? event : JSON.stringify(event)}\n\n`,
      );
    for (const line of lines) response.write(`${JSON.stringify(line)}\n`);
    if (json !== undefined) response.write(JSON.stringify(json));
    if (!hang) response.end();
    else response.flushHeaders();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}
