/**
 * JavaScript's regular expressions in the dialect of the engines: one that a finite automaton can decide. Law: what no
 * automaton can decide is refused here, when the program is built, with its position.
 */
import { SglangError } from '../engine/errors.ts';

const lookAround: Record<string, string> = {
  '(?=': 'look-ahead',
  '(?!': 'look-ahead',
  '(?<=': 'look-behind',
  '(?<!': 'look-behind',
};
const FLAGS_THAT_MATTER = /[ims]/g;

/** The pattern's source; the whole output matches it, so outer anchors are dropped. Flags become `(?…)`. */
export function regexSource(regex: RegExp | string): string {
  const source = typeof regex === 'string' ? regex : regex.source;
  checkDecidable(source);
  const flags = typeof regex === 'string' ? null : regex.flags.match(FLAGS_THAT_MATTER);
  return (flags ? `(?${flags.join('')})` : '') + withoutAnchors(source);
}

function withoutAnchors(source: string): string {
  const inner = source.replace(/^\^/, '');
  const dollar = /(\\*)\$$/.exec(inner);
  return dollar && dollar[1]!.length % 2 === 0 ? inner.slice(0, -1) : inner;
}

function checkDecidable(source: string): void {
  let inClass = false;
  for (let at = 0; at < source.length; at++) {
    if (!inClass) refuseAt(source, at);
    if (source[at] === '\\') at++;
    else if (source[at] === '[') inClass = true;
    else if (source[at] === ']') inClass = false;
  }
}

function refuseAt(source: string, at: number): void {
  const rest = source.slice(at, at + 4);
  const around = lookAround[rest.slice(0, 3)] ?? lookAround[rest];
  const name = around ?? (/^\\([1-9]|k<)/.test(rest) ? 'back-reference' : undefined);
  if (!name) return;
  throw new SglangError('unsupported', `regex: ${name} at position ${at} of /${source}/ is not supported`, 'regex');
}
