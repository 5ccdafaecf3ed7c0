/**
 * What a route gets to answer a request, and the one way from a route to the engine: `submit` registers the generation
 * under its rid, times it, and ends it when the client goes away.
 */
import { randomUUID } from 'node:crypto';
import type { Request, Response } from 'express';
import type { Logger } from 'pino';
import { SglangError } from '../engine/errors.ts';
import type { EngineLike, GenerateChunk, GenerateRequest, GenerateResult, Generation } from '../engine/types.ts';
import type { Metrics } from './metrics.ts';
import type { FieldName } from './problem.ts';

export interface ServerOptions {
  /** Name of the model on the wire. Default: its path. */
  servedModelName?: string;
  /** Without it everybody may ask. */
  apiKey?: string;
  /** `Access-Control-Allow-Origin`; without it browsers of other origins are refused. */
  corsOrigin?: string;
  /** Refuse other model names than the served one. */
  strictModel?: boolean;
  /** `/generate` streams new text only, in place of all text so far. */
  streamOutput?: boolean;
  /** Largest body in bytes. Default 16 MiB. */
  maxBodyBytes?: number;
  /** `/radix?text=true` may show the text of cached prompts, whosever they are. */
  radixText?: boolean;
  /** One log line per request. */
  logRequests?: boolean;
  logger?: Logger;
  /** Flags to be told by `/get_server_info`; secrets are left out by the caller. */
  flags?: Readonly<Record<string, unknown>>;
}

/** What all requests of one server share. */
export interface ServerState {
  readonly engine: EngineLike;
  readonly options: ServerOptions;
  readonly modelName: string;
  readonly metrics: Metrics;
  readonly running: RunningGenerations;
  readonly startedAt: Date;
}

export interface Call extends ServerState {
  readonly req: Request;
  readonly res: Response;
  readonly body: unknown;
  readonly fieldName: FieldName | undefined;
  /** Aborted when the answer ends, complete or because the client went away. */
  readonly signal: AbortSignal;
}

export interface Route {
  readonly methods: readonly ('get' | 'post')[];
  readonly paths: readonly string[];
  /** The route reads a JSON body. */
  readonly takesBody?: boolean;
  /** How its requests call fields, where not as the engine does. */
  readonly fieldName?: FieldName;
  answer(call: Call): unknown;
}

/** Generations that have not ended, by rid; several may share one. After `stop` none is begun, after `end` none goes on. */
export class RunningGenerations {
  private readonly byRid = new Map<string, Set<Generation>>();
  private stopped = false;
  private ended = false;

  get isStopped(): boolean {
    return this.stopped;
  }

  get size(): number {
    return [...this.byRid.values()].reduce((sum, set) => sum + set.size, 0);
  }

  /** `goesOn`: the generation is part of an answer that others were part of before. */
  add(rid: string, start: () => Generation, goesOn: boolean): Generation {
    if (this.ended || (this.stopped && !goesOn)) throw new SglangError('engine_closed', 'the server is stopping');
    const generation = start();
    const set = this.byRid.get(rid) ?? new Set();
    this.byRid.set(rid, set.add(generation));
    const forget = () => {
      set.delete(generation);
      if (set.size === 0 && this.byRid.get(rid) === set) this.byRid.delete(rid);
    };
    generation.all().then(forget, forget);
    return generation;
  }

  abort(rid: string): number {
    const found = [...(this.byRid.get(rid) ?? [])];
    found.forEach((generation) => generation.abort('aborted by /abort_request'));
    return found.length;
  }

  abortAll(reason: string): number {
    const all = [...this.byRid.values()].flatMap((set) => [...set]);
    all.forEach((generation) => generation.abort(reason));
    return all.length;
  }

  stop(): void {
    this.stopped = true;
  }

  end(): void {
    this.ended = true;
    this.abortAll('the server is stopping');
  }
}

/** A generation on behalf of a call. */
export interface Submission {
  readonly rid: string;
  readonly request: GenerateRequest;
  /** Pieces as they come. Nothing is lost between submission and the first read. */
  readonly chunks: AsyncIterable<GenerateChunk>;
  /** All samples, when they are complete. */
  results(): Promise<GenerateResult[]>;
}

export function submit(
  call: Call,
  request: GenerateRequest,
  rid: string = randomUUID(),
  { goesOn = false } = {},
): Submission {
  const generation = call.running.add(rid, () => call.engine.generate({ ...request, signal: call.signal }), goesOn);
  const chunks = call.metrics.timed(generation);
  const results = async () => {
    for await (const _ of chunks);
    return generation.all();
  };
  return { rid, request, chunks, results };
}

/** Submits a list; where one is refused the call fails, and its end aborts the others. */
export function submitAll(call: Call, requests: readonly GenerateRequest[], rid?: string): Submission[] {
  return requests.map((request) => submit(call, request, rid));
}

/** The results of all submissions, in order. */
export function allResults(submissions: readonly Submission[]): Promise<GenerateResult[][]> {
  return Promise.all(submissions.map((submission) => submission.results()));
}
