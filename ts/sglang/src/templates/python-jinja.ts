/**
 * What `@huggingface/jinja` leaves out of Python's jinja2 and published templates use: values printed as Python prints
 * them, a scope for each turn of a loop, raw blocks, `+` beside block marks, chains of comparisons, tests with arguments, some
 * filters and methods. Law: the parser and all else are the library's; nodes that are not ours go to it, their operands
 * evaluated already.
 */
import { Environment, Interpreter, parse as treeOf, tokenize } from '@huggingface/jinja';
import { chained, rewritten } from './jinja-tokens.ts';

type Value = ReturnType<Interpreter['evaluate']>;
type Base = NonNullable<Parameters<Interpreter['evaluate']>[0]>;

/** A node of a parsed template; each kind has some of these. */
interface Node extends Base {
  body?: Node[];
  alternate?: Node[];
  defaultBlock?: Node[];
  operator?: { value: string; [chained]?: boolean };
  left?: Node;
  right?: Node;
  operand?: Node;
  filter?: Node;
  callee?: Node;
  object?: Node;
  property?: Node;
  computed?: boolean;
  args?: Node[];
  test?: Node;
  negate?: boolean;
  value?: unknown;
}

const expressions = new Set([
  ...['Identifier', 'MemberExpression', 'CallExpression', 'BinaryExpression', 'UnaryExpression', 'FilterExpression'],
  ...['TestExpression', 'SelectExpression', 'SliceExpression', 'Ternary'],
  ...['IntegerLiteral', 'FloatLiteral', 'ArrayLiteral', 'TupleLiteral', 'ObjectLiteral'],
]);

/** Parses a template for {@link run}. */
export function parse(source: string): Node[] {
  const tokens = tokenize(plain(source), { lstrip_blocks: true, trim_blocks: true });
  const { body } = treeOf(rewritten(tokens)) as Node;
  prepare(body!);
  return body!;
}

/** The text of a template. */
export function run(body: Node[], variables: Readonly<Record<string, unknown>>): string {
  const scope = new Environment();
  for (const [name, value] of Object.entries(variables)) scope.set(name, value);
  return String(new PythonInterpreter(scope).evaluate({ type: 'Program', body } as Node, scope).value);
}

/** Raw blocks as quoted text, and quoted nothing where `+` keeps white space that a block mark would take. */
function plain(source: string): string {
  const escaped = (text: string) => text.replaceAll('\\', '\\\\').replaceAll("'", "\\'").replaceAll('\n', '\\n');
  const shown = (text: string, left = '', right = '') => `{{${left} '${escaped(text)}' ${right}}}`;
  return source
    .replace(
      /(?:^[ \t]*)?\{%(-?)\s*raw\s*%\}([^]*?)(?:^[ \t]*)?\{%\s*endraw\s*(-?)%\}\n?/gm,
      (_, left: string, text: string, right: string) => shown(text, left, right),
    )
    .replace(/^([ \t]*)\{%\+/gm, (_, space: string) => `${shown(space)}{%`)
    .replaceAll('{%+', '{%')
    .replaceAll('+%}', "%}{{ '' }}");
}

/** Marks printed expressions, and the bodies of loops. */
function prepare(body: Node[]): void {
  body.forEach((node, i) => {
    for (const inner of [node.body, node.alternate, node.defaultBlock]) if (Array.isArray(inner)) prepare(inner);
    if (node.type === 'For') node.body = [{ type: 'Scope', body: node.body } as Node];
    if (expressions.has(node.type)) body[i] = { type: 'Print', operand: node } as Node;
  });
}

class PythonInterpreter extends Interpreter {
  override evaluate(base: Base | undefined, scope: Environment): Value {
    const node = base as Node;
    switch (node?.type) {
      case 'Known':
        return node.value as Value;
      case 'Print':
        return this.#text(str(this.evaluate(node.operand, scope)));
      case 'Scope':
        return super.evaluate({ type: 'Program', body: node.body } as Node, new Environment(scope));
      case 'BinaryExpression':
        return this.#binary(node, scope);
      case 'FilterExpression':
        return this.#filter(node, scope);
      case 'TestExpression':
        if (node.test!.value !== 'float') break;
        return flag((this.evaluate(node.operand, scope).type === 'FloatValue') !== node.negate);
      case 'CallExpression':
        return this.#call(node, scope);
    }
    return super.evaluate(base, scope);
  }

  #text(text: string): Value {
    return super.evaluate({ type: 'StringLiteral', value: text } as Node, this.global);
  }

  #number(value: number, isFloat: boolean): Value {
    return super.evaluate({ type: isFloat ? 'FloatLiteral' : 'IntegerLiteral', value } as Node, this.global);
  }

  #list(values: readonly Value[]): Value {
    return super.evaluate({ type: 'ArrayLiteral', value: values.map(known) } as Node, this.global);
  }

  #binary(node: Node, scope: Environment): Value {
    const operator = node.operator!.value;
    if (operator === 'and' || operator === 'or') return super.evaluate(node, scope);
    if (node.operator![chained]) return this.#chain(node, scope);
    const [left, right] = [this.evaluate(node.left, scope), this.evaluate(node.right, scope)];
    if (operator === '*' && right.type === 'IntegerValue') {
      const times = Math.max(0, right.value as number);
      if (left.type === 'StringValue') return this.#text((left.value as string).repeat(times));
      if (isList(left)) return this.#list(Array.from({ length: times }, () => left.value as Value[]).flat());
    }
    if (operator === '~') return this.#text(str(left) + str(right));
    if ((operator === '==' || operator === '!=') && (isList(left) || left.type === 'ObjectValue'))
      return flag(equal(left, right) === (operator === '=='));
    return super.evaluate({ ...node, left: known(left), right: known(right) } as Node, scope);
  }

  /** `a < b <= c` is `a < b and b <= c`. */
  #chain(node: Node, scope: Environment): Value {
    const before = this.evaluate(node.left, scope);
    if (!before.__bool__().value) return before;
    const { value } = node.operator!;
    return this.#binary({ ...node, operator: { value }, left: node.left!.right } as Node, scope);
  }

  #filter(node: Node, scope: Environment): Value {
    const value = this.evaluate(node.operand, scope);
    const isCall = node.filter!.type === 'CallExpression';
    const name = (isCall ? node.filter!.callee! : node.filter!).value as string;
    const nodes = isCall ? node.filter!.args! : [];
    const args = () => nodes.map((arg) => this.evaluate(arg, scope));
    const [, isNegated, test] = /^is (not )?(.+)$/.exec(name) ?? [];
    if (test !== undefined) return flag(this.#holds(test, value, args(), scope) === (isNegated === undefined));
    const own = nodes.some(({ type }) => type === 'KeywordArgumentExpression')
      ? undefined
      : isList(value)
        ? this.#ofList(name, value.value as Value[], args, scope)
        : this.#ofScalar(name, value, args);
    return own ?? super.evaluate({ ...node, operand: known(value) } as Node, scope);
  }

  #member(value: Value, name: Value, scope: Environment): Value {
    const [object, property] = [known(value), known(name)];
    return this.evaluate({ type: 'MemberExpression', object, property, computed: true } as Node, scope);
  }

  /** Tests with arguments. */
  #holds(test: string, value: Value, args: readonly Value[], scope: Environment): boolean {
    const [other] = args;
    if (other !== undefined && Object.hasOwn(operatorOf, test)) {
      const operator = { value: operatorOf[test]! };
      return this.#binary(
        { type: 'BinaryExpression', operator, left: known(value), right: known(other) } as Node,
        scope,
      ).value as boolean;
    }
    if (test === 'divisibleby') return (value.value as number) % (other?.value as number) === 0;
    const check = scope.tests.get(test);
    if (!check) throw new Error(`Unknown test: ${test}`);
    return check(value, ...args);
  }

  #ofList(name: string, list: Value[], args: () => Value[], scope: Environment): Value | undefined {
    const numbers = () => list.map(({ value }) => value as number);
    const extreme = (sign: number) => list.reduce((a, b) => (sign * compare(b, a) > 0 ? b : a));
    switch (name) {
      case 'sum':
        return this.#number(
          numbers().reduce((sum, value) => sum + value, 0),
          list.some(({ type }) => type === 'FloatValue'),
        );
      case 'max':
      case 'min':
        return list.length === 0 ? undefined : extreme(name === 'max' ? 1 : -1);
      case 'select':
      case 'reject':
      case 'selectattr':
      case 'rejectattr': {
        const given = args();
        const attribute = name.endsWith('attr') ? given.shift() : undefined;
        const [test, ...rest] = given;
        const asked = (value: Value) => (attribute ? this.#member(value, attribute, scope) : value);
        const holds = (value: Value) =>
          test ? this.#holds(test.value as string, value, rest, scope) : value.__bool__().value;
        return this.#list(list.filter((value) => holds(asked(value)) === name.startsWith('select')));
      }
      case 'map': {
        const [filter, ...rest] = args();
        const named = { type: 'Identifier', value: filter?.value } as Node;
        const called = { type: 'CallExpression', callee: named, args: rest.map(known) } as Node;
        const each = { type: 'FilterExpression', filter: rest.length > 0 ? called : named } as Node;
        return this.#list(list.map((value) => this.evaluate({ ...each, operand: known(value) } as Node, scope)));
      }
    }
    return name === 'string' ? this.#text(str({ type: 'ArrayValue', value: list } as Value)) : undefined;
  }

  #ofScalar(name: string, value: Value, args: () => Value[]): Value | undefined {
    const text = value.type === 'StringValue' ? (value.value as string) : undefined;
    if (name === 'string' || (name === 'trim' && text === undefined)) return this.#text(str(value));
    if (name === 'capitalize' && text !== undefined) return this.#text(capitalized(text));
    if (name === 'list' && text !== undefined) return this.#list([...text].map((letter) => this.#text(letter)));
    if (name !== 'round' || value.type !== 'FloatValue') return undefined;
    const [digits] = args();
    return this.#number(Number((value.value as number).toFixed((digits?.value as number) ?? 0)), true);
  }

  /** Methods of texts that the library does not have, or not with arguments. */
  #call(node: Node, scope: Environment): Value {
    const { callee, args = [] } = node;
    if (callee!.type !== 'MemberExpression' || callee!.computed) return super.evaluate(node, scope);
    const object = this.evaluate(callee!.object, scope);
    const name = callee!.property!.value as string;
    if (object.type === 'StringValue' && args.length === 1 && /^(find|[lr]?strip)$/.test(name)) {
      const text = object.value as string;
      const given = this.evaluate(args[0], scope).value as string;
      if (name === 'find') return this.#number(text.indexOf(given), false);
      return this.#text(stripped(text, given, name !== 'rstrip', name !== 'lstrip'));
    }
    return super.evaluate({ ...node, callee: { ...callee, object: known(object) } } as Node, scope);
  }
}

/** The comparison that a test with an argument is. */
const operatorOf: Readonly<Record<string, string>> = {
  ...{ in: 'in', eq: '==', equalto: '==', sameas: '==', ne: '!=' },
  ...{ lt: '<', lessthan: '<', le: '<=', gt: '>', greaterthan: '>', ge: '>=' },
};

const known = (value: Value) => ({ type: 'Known', value }) as Node;
const flag = (value: boolean) => new Environment().set('flag', value);
const isList = ({ type }: Value) => type === 'ArrayValue' || type === 'TupleValue';
const capitalized = (text: string) => text.slice(0, 1).toUpperCase() + text.slice(1).toLowerCase();

function compare(a: Value, b: Value): number {
  const [left, right] = [a.value as number, b.value as number];
  return left < right ? -1 : left > right ? 1 : 0;
}

function equal(a: Value, b: Value): boolean {
  if (a.type === 'ObjectValue' && b.type === 'ObjectValue') {
    const [left, right] = [a.value as Map<string, Value>, b.value as Map<string, Value>];
    const has = ([key, value]: [string, Value]) => right.has(key) && equal(value, right.get(key)!);
    return left.size === right.size && [...left].every(has);
  }
  if (!isList(a)) return a.value === b.value;
  const [left, right] = [a.value as Value[], b.value as Value[]];
  return a.type === b.type && left.length === right.length && left.every((value, i) => equal(value, right[i]!));
}

function stripped(text: string, letters: string, left: boolean, right: boolean): string {
  const rest = [...text];
  while (left && rest.length > 0 && letters.includes(rest[0]!)) rest.shift();
  while (right && rest.length > 0 && letters.includes(rest.at(-1)!)) rest.pop();
  return rest.join('');
}

/** As Python's `str` writes it; what is not defined is nothing. */
function str(value: Value): string {
  if (value.type === 'StringValue') return value.value as string;
  return value.type === 'UndefinedValue' ? '' : repr(value);
}

function repr(value: Value): string {
  switch (value.type) {
    case 'NullValue':
      return 'None';
    case 'BooleanValue':
      return value.value ? 'True' : 'False';
    case 'StringValue':
      return quoted(value.value as string);
    case 'ArrayValue':
      return `[${(value.value as Value[]).map(repr).join(', ')}]`;
    case 'TupleValue': {
      const items = (value.value as Value[]).map(repr);
      return items.length === 1 ? `(${items[0]},)` : `(${items.join(', ')})`;
    }
    case 'ObjectValue': {
      const pairs = [...(value.value as Map<string, Value>)].map(([key, item]) => `${quoted(key)}: ${repr(item)}`);
      return `{${pairs.join(', ')}}`;
    }
  }
  return value.toString();
}

function quoted(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escapes: Record<string, string> = {
    '\n': '\\n',
    '\r': '\\r',
    '\t': '\\t',
    '\\': '\\\\',
    [quote]: `\\${quote}`,
  };
  return quote + text.replace(/[\n\r\t\\'"]/g, (letter) => escapes[letter] ?? letter) + quote;
}
