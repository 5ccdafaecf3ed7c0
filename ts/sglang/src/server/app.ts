/**
 * The HTTP application of an engine: one table of routes, answered in one way. A request that fails gets the error shape
 * of `problem.ts`, whatever went wrong, and the process stays up.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import express from 'express';
import type { ErrorRequestHandler, Express, NextFunction, Request, RequestHandler, Response } from 'express';
import type { EngineLike } from '../engine/types.ts';
import { jsonBody } from './body.ts';
import { RunningGenerations } from './calls.ts';
import type { Route, ServerOptions, ServerState } from './calls.ts';
import { chatRoutes } from './chat.ts';
import { completionRoutes } from './completions.ts';
import { embeddingRoutes } from './embeddings.ts';
import { Metrics } from './metrics.ts';
import { modelRoutes } from './models.ts';
import { nativeRoutes } from './native.ts';
import { HttpProblem, inTermsOf, problemOf } from './problem.ts';
import { scoreRoutes } from './scores.ts';
import { statusRoutes } from './status.ts';
import { tokenRoutes } from './tokens.ts';

const routes: readonly Route[] = [
  ...nativeRoutes,
  ...statusRoutes,
  ...tokenRoutes,
  ...modelRoutes,
  ...completionRoutes,
  ...chatRoutes,
  ...embeddingRoutes,
  ...scoreRoutes,
];

/** Paths that are open without the API key: they say no more than that the server is there. */
const openPaths = new Set(['/health', '/ping']);

const defaultBodyBytes = 16 << 20;

export function createState(engine: EngineLike, options: ServerOptions): ServerState {
  const modelName = options.servedModelName ?? engine.model.modelPath;
  const metrics = new Metrics(() => engine.stats(), modelName);
  return { engine, options, modelName, metrics, running: new RunningGenerations(), startedAt: new Date() };
}

export function appOf(state: ServerState): Express {
  const { options } = state;
  const app = express().disable('x-powered-by').disable('etag');
  if (options.logRequests) app.use(logRequest(state));
  if (options.corsOrigin !== undefined) app.use(allowOrigin(options.corsOrigin));
  if (options.apiKey !== undefined) app.use(requireKey(options.apiKey));
  const readBody = jsonBody(options.maxBodyBytes ?? defaultBodyBytes);
  for (const route of routes) {
    const chain = [...(route.takesBody ? readBody : []), answer(state, route)];
    for (const method of route.methods) app[method]([...route.paths], chain);
    app.all([...route.paths], refuseMethod(route));
  }
  app.use(unknownRoute);
  app.use(answerError(state));
  return app;
}

function answer(state: ServerState, route: Route): RequestHandler {
  const { fieldName } = route;
  return async (req, res) => {
    const control = new AbortController();
    res.on('close', () => control.abort());
    try {
      await route.answer({ ...state, req, res, body: req.body as unknown, fieldName, signal: control.signal });
    } catch (error) {
      if (!control.signal.aborted) throw inTermsOf(fieldName, error);
    }
  };
}

function answerError({ options }: ServerState): ErrorRequestHandler {
  return (error: unknown, req: Request, res: Response, _next: NextFunction) => {
    const problem = problemOf(error);
    if (!problem.expected) options.logger?.error({ err: error, path: req.path }, 'request failed');
    if (res.headersSent) res.destroy();
    else res.status(problem.status).set(problem.headers).json(problem.body);
  };
}

function refuseMethod(route: Route): RequestHandler {
  const allowed = route.methods.map((method) => method.toUpperCase()).join(', ');
  return (req) => {
    const message = `${req.method} is not allowed on ${req.path}; use ${allowed}`;
    throw new HttpProblem(405, 'method_not_allowed', message, { Allow: allowed });
  };
}

const unknownRoute: RequestHandler = (req) => {
  const known = routes.map((route) => route.paths[0]).join(', ');
  throw new HttpProblem(404, 'unknown_route', `no such route: ${req.method} ${req.path}; there are ${known}`);
};

function requireKey(key: string): RequestHandler {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  const expected = digest(`Bearer ${key}`);
  return (req, _res, next) => {
    if (openPaths.has(req.path) || timingSafeEqual(digest(req.get('authorization') ?? ''), expected)) return next();
    const message = 'missing or wrong API key: send the header "Authorization: Bearer <key>"';
    throw new HttpProblem(401, 'invalid_api_key', message, { 'WWW-Authenticate': 'Bearer' });
  };
}

function allowOrigin(origin: string): RequestHandler {
  return (req, res, next) => {
    res.set({ 'Access-Control-Allow-Origin': origin, Vary: 'Origin' });
    if (req.method !== 'OPTIONS') return next();
    res.set({ 'Access-Control-Allow-Methods': 'GET, POST', 'Access-Control-Max-Age': '600' });
    res.set('Access-Control-Allow-Headers', req.get('access-control-request-headers') ?? 'content-type, authorization');
    res.status(204).end();
  };
}

function logRequest({ options }: ServerState): RequestHandler {
  return (req, res, next) => {
    const start = performance.now();
    res.on('close', () => {
      const ms = Math.round(performance.now() - start);
      const status = res.writableFinished ? res.statusCode : 'client closed';
      options.logger?.info({ method: req.method, path: req.path, status, ms }, 'request');
    });
    next();
  };
}
