/**
 * Two constructs that the library's parser does not know, rewritten among its tokens. A test with an argument becomes a
 * filter of that name (`x is not in [y]` → `x | "is not in"([y])`), which binds as tightly. A comparison that goes on with
 * the result of another (`a < b <= c`) is marked, since the tree cannot tell it from one in brackets.
 */
import type { tokenize } from '@huggingface/jinja';

type Token = ReturnType<typeof tokenize>[number];

/** Says of an operator that its comparison goes on with the right side of the one before. */
export const chained = Symbol('chained');

const openers = new Set(['OpenParen', 'OpenSquareBracket', 'OpenCurlyBracket']);
const closers = new Set(['CloseParen', 'CloseSquareBracket', 'CloseCurlyBracket']);
/** What an argument without brackets of its own may begin with. */
const beginnings = new Set([...openers, 'Identifier', 'StringLiteral', 'NumericLiteral']);
const isWord = (token: Token | undefined, ...words: readonly string[]) =>
  token?.type === 'Identifier' && words.includes(token.value);

export function rewritten(tokens: readonly Token[]): Token[] {
  return withChains(withTests(tokens));
}

function withTests(tokens: readonly Token[]): Token[] {
  const out: Token[] = [];
  for (let i = 0; i < tokens.length; i++) {
    const isNegated = isWord(tokens[i + 1], 'not');
    const name = i + (isNegated ? 2 : 1);
    const end = isWord(tokens[i], 'is') && tokens[name]?.type === 'Identifier' ? argumentEnd(tokens, name + 1) : -1;
    if (end < 0) {
      out.push(tokens[i]!);
      continue;
    }
    const inner = withTests(tokens.slice(name + 1, end));
    const args =
      tokens[name + 1]!.type === 'OpenParen' ? inner : [token('OpenParen', '('), ...inner, token('CloseParen', ')')];
    out.push(token('Pipe', '|'), token('Identifier', `is ${isNegated ? 'not ' : ''}${tokens[name]!.value}`), ...args);
    i = end - 1;
  }
  return out;
}

const token = (type: Token['type'], value: string): Token => ({ type, value });

/** Where the argument of a test ends that begins at `start`; -1 where none does. */
function argumentEnd(tokens: readonly Token[], start: number): number {
  const first = tokens[start];
  if (!first || isWord(first, 'and', 'or', 'else', 'if', 'is', 'in', 'not')) return -1;
  if (!beginnings.has(first.type)) return -1;
  let end = bracketEnd(tokens, start);
  const goesOn = () => ['Dot', 'OpenSquareBracket', 'OpenParen'].includes(tokens[end]?.type ?? '');
  while (first.type !== 'OpenParen' && goesOn()) end = tokens[end]!.type === 'Dot' ? end + 2 : bracketEnd(tokens, end);
  return end;
}

/** Behind the token at `start`, or behind the bracket that closes it. */
function bracketEnd(tokens: readonly Token[], start: number): number {
  let [depth, end] = [0, start];
  do {
    const at = tokens[end++];
    if (!at) break;
    depth += openers.has(at.type) ? 1 : closers.has(at.type) ? -1 : 0;
  } while (depth > 0);
  return end;
}

/** Ends of what a comparison can be a part of, at one level of brackets. */
const borders = new Set([
  'Comma',
  'Colon',
  'Equals',
  'OpenStatement',
  'CloseStatement',
  'OpenExpression',
  'CloseExpression',
]);

function withChains(tokens: readonly Token[]): Token[] {
  const compared = [false];
  return tokens.map((at) => {
    if (openers.has(at.type)) compared.push(false);
    else if (closers.has(at.type)) compared.pop();
    else if (borders.has(at.type) || isWord(at, 'and', 'or', 'not', 'if', 'else'))
      compared[compared.length - 1] = false;
    else if (at.type === 'ComparisonBinaryOperator' || isWord(at, 'in')) {
      const goesOn = compared.at(-1);
      compared[compared.length - 1] = true;
      if (goesOn) return { ...at, [chained]: true };
    }
    return at;
  });
}
