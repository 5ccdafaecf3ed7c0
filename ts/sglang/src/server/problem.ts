/** Every error leaves the server in one shape, OpenAI's, with an HTTP status; what is unexpected is told to the log only. */
import { SglangError } from '../engine/errors.ts';

/** An error of the HTTP layer itself, which the engine has no code for. */
export class HttpProblem extends Error {
  override readonly name = 'HttpProblem';

  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly headers: Readonly<Record<string, string>> = {},
  ) {
    super(message);
  }
}

export interface ProblemBody {
  error: { message: string; type: string; param: string | null; code: string };
}

export interface Problem {
  status: number;
  headers: Readonly<Record<string, string>>;
  body: ProblemBody;
  /** False for faults of our own, which belong in the log. */
  expected: boolean;
}

/** The request's name of a field, by the name that the engine has for it. */
export type FieldName = (engines: string) => string;

/** An error of the engine that names a field as the request does. */
export function inTermsOf(fieldName: FieldName | undefined, error: unknown): unknown {
  if (!fieldName || !(error instanceof SglangError) || error.param === null) return error;
  const { code, message, param } = error;
  const own = fieldName(param);
  return new SglangError(code, message.startsWith(`${param}:`) ? own + message.slice(param.length) : message, own);
}

/** What a client is told about a thrown value. */
export function problemOf(thrown: unknown): Problem {
  if (thrown instanceof SglangError) {
    const headers: Record<string, string> = thrown.code === 'overloaded' ? { 'Retry-After': '1' } : {};
    return problem(thrown.status, thrown.code, thrown.message, thrown.param, headers);
  }
  if (thrown instanceof HttpProblem) return problem(thrown.status, thrown.code, thrown.message, null, thrown.headers);
  // An address that cannot be decoded.
  if (thrown instanceof URIError) return problem(400, 'bad_request', thrown.message, null, {});
  return problem(500, 'internal_error', 'the server failed on this request; its log says why', null, {}, false);
}

function problem(
  status: number,
  code: string,
  message: string,
  param: string | null,
  headers: Readonly<Record<string, string>>,
  expected = true,
): Problem {
  return { status, headers, body: { error: { message, type: typeOf(status), param, code } }, expected };
}

function typeOf(status: number): string {
  if (status === 401) return 'authentication_error';
  if (status === 404) return 'not_found_error';
  if (status === 503) return 'overloaded_error';
  return status < 500 ? 'invalid_request_error' : 'server_error';
}
