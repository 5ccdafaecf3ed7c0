/** Request bodies: JSON in UTF-8 under a size limit, or an error that says which of these it is not. */
import express from 'express';
import type { RequestHandler } from 'express';
import { HttpProblem } from './problem.ts';

/** Reads the body and leaves the parsed JSON in `req.body`. */
export function jsonBody(limitBytes: number): RequestHandler[] {
  const read = express.raw({ type: () => true, limit: limitBytes });
  return [
    (req, _res, next) => {
      if (!req.is('json') && !req.is('+json') && hasBody(req.headers)) throw notJson(req.headers['content-type']);
      read(req, _res, (error?: unknown) => next(error && readProblem(error, limitBytes)));
    },
    (req, _res, next) => {
      req.body = parse(Buffer.isBuffer(req.body) ? req.body : Buffer.alloc(0));
      next();
    },
  ];
}

function hasBody(headers: NodeJS.Dict<string | string[]>): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}

function notJson(type: string | undefined): HttpProblem {
  const message = `the body must be JSON: expected content-type application/json, got ${type ?? 'none'}`;
  return new HttpProblem(415, 'unsupported_media_type', message);
}

function readProblem(error: unknown, limitBytes: number): HttpProblem {
  const { type, message } = error as { type?: string; message: string };
  if (type === 'entity.too.large')
    return new HttpProblem(413, 'body_too_large', `the body is over ${limitBytes} bytes`);
  if (type === 'encoding.unsupported') return new HttpProblem(415, 'unsupported_media_type', message);
  return new HttpProblem(400, 'bad_request', `the body could not be read: ${message}`);
}

function parse(bytes: Buffer): unknown {
  if (bytes.length === 0) throw new HttpProblem(400, 'bad_request', 'the body is empty; expected a JSON object');
  const value = parseJson(decode(bytes));
  if (isDeeperThan(deepest, value))
    throw new HttpProblem(400, 'bad_request', `the body has values nested more than ${deepest} levels deep`);
  return value;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const position = problemPosition(text, error as SyntaxError);
    const where = position === undefined ? '' : ` at position ${position}`;
    throw new HttpProblem(400, 'invalid_json', `the body is not valid JSON${where}: ${(error as Error).message}`);
  }
}

/** More levels would overflow the stack of what walks them, first of all `JSON.stringify`. */
const deepest = 500;

function isDeeperThan(levels: number, value: unknown): boolean {
  let level = [value].filter(isStructure);
  for (let depth = 0; depth < levels && level.length > 0; depth++)
    level = level.flatMap((outer) => Object.values(outer).filter(isStructure));
  return level.length > 0;
}

function isStructure(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

function decode(bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new HttpProblem(400, 'invalid_utf8', 'the body is not valid UTF-8');
  }
}

/** Beyond this the position is not searched for: the search parses the text up to 20 times. */
const searchedChars = 1 << 20;

/**
 * Where `text` stops being JSON. The parser often tells; where it does not, the longest prefix that is only unfinished
 * is found by halving.
 */
function problemPosition(text: string, error: SyntaxError): number | undefined {
  const told = /position (\d+)/.exec(error.message)?.[1];
  if (told !== undefined) return Number(told);
  if (error.message.startsWith('Unexpected end')) return text.length;
  if (text.length > searchedChars) return undefined;
  let [good, bad] = [0, text.length];
  while (bad - good > 1) {
    const middle = (good + bad) >> 1;
    if (isUnfinished(text.slice(0, middle))) good = middle;
    else bad = middle;
  }
  return good;
}

function isUnfinished(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch (error) {
    const { message } = error as SyntaxError;
    const told = /position (\d+)/.exec(message)?.[1];
    return told === undefined ? message.startsWith('Unexpected end') : Number(told) >= text.length;
  }
}
