/** An engine behind a listening port, and its orderly end: no new requests, running ones finished or aborted, engine closed. */
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { EngineLike } from '../engine/types.ts';
import { appOf, createState } from './app.ts';
import type { ServerOptions, ServerState } from './calls.ts';

export interface ServeOptions extends ServerOptions {
  /** Default 127.0.0.1. */
  host?: string;
  /** Default 30000; 0 takes a free one. */
  port?: number;
}

export interface RunningServer {
  /** E.g. `http://127.0.0.1:30000`. */
  readonly url: string;
  /** Ends it: running requests get `graceMs` (default 5,000) to finish, then they are aborted. */
  stop(graceMs?: number): Promise<void>;
}

/** Idle connections are kept longer than the 60 s that proxies in front use. */
const keepAliveMs = 75_000;

/** Listens; throws where the port or the host cannot be had. The engine is closed by `stop`. */
export async function serve(engine: EngineLike, options: ServeOptions = {}): Promise<RunningServer> {
  const { host = '127.0.0.1', port = 30_000 } = options;
  const state = createState(engine, options);
  const server = createServer(appOf(state));
  server.keepAliveTimeout = keepAliveMs;
  await listen(server, host, port);
  const { port: bound } = server.address() as AddressInfo;
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${bound}`;
  return { url, stop: (graceMs = 5_000) => stop(server, state, graceMs) };
}

/** Throws what `serve` would throw about the port, before a model is loaded for it. */
export async function assertFree(host: string, port: number): Promise<void> {
  const probe = createServer();
  await listen(probe, host, port);
  await new Promise((resolve) => probe.close(resolve));
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    // It listens on: an error after this promise is settled, such as of one connection, ends nothing else.
    server.on('error', (error: NodeJS.ErrnoException) => reject(listenError(error, host, port)));
    server.listen(port, host, resolve);
  });
}

function listenError(error: NodeJS.ErrnoException, host: string, port: number): Error {
  if (error.code === 'EADDRINUSE') return new Error(`port ${port} on ${host} is in use; choose another with --port`);
  if (error.code === 'EACCES')
    return new Error(`port ${port} may not be opened by this user; choose another with --port`);
  if (error.code === 'EADDRNOTAVAIL' || error.code === 'ENOTFOUND') {
    return new Error(`${host} is not an address of this machine; choose another with --host`);
  }
  return error;
}

async function stop(server: Server, { engine, running }: ServerState, graceMs: number): Promise<void> {
  running.stop();
  let isClosed = false;
  const closed = new Promise<void>((resolve) => server.close(() => resolve())).then(() => (isClosed = true));
  const drain = async (ms: number) => {
    for (const deadline = performance.now() + ms; !isClosed && performance.now() < deadline; await sleep(20)) {
      server.closeIdleConnections();
    }
  };
  await drain(graceMs);
  running.end();
  await drain(1_000);
  server.closeAllConnections();
  await closed;
  await engine.close();
}
