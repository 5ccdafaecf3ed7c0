/** Errors of the engine and the server: each has a stable code, and the HTTP status it is answered with. */

export type SglangErrorCode =
  | 'bad_request'
  | 'context_length_exceeded'
  | 'model_not_found'
  | 'overloaded'
  | 'load_failed'
  | 'device_error'
  | 'engine_closed'
  | 'unsupported';

const statusOf: Record<SglangErrorCode, number> = {
  bad_request: 400,
  context_length_exceeded: 400,
  unsupported: 400,
  model_not_found: 404,
  overloaded: 503,
  load_failed: 500,
  device_error: 500,
  engine_closed: 503,
};

export class SglangError extends Error {
  override readonly name = 'SglangError';

  constructor(
    readonly code: SglangErrorCode,
    message: string,
    /** The offending field, where there is one. */
    readonly param: string | null = null,
  ) {
    super(message);
  }

  get status(): number {
    return statusOf[this.code];
  }
}
