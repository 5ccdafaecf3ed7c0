/**
 * Objects of a JSON Schema that do not mention additional properties get none, so that a model cannot invent any. Law:
 * schemas that describe one object together (`allOf`, and what stands beside `anyOf` or `oneOf`) allow one another's
 * properties, or no object would fit them all.
 */
type Schema = Record<string, unknown>;

/** Keys whose members are about the same value as the schema they stand in. */
const combiners: string[] = ['allOf', 'anyOf', 'oneOf'];

export function closedSchema(root: object): unknown {
  return new Closing(root as Schema).closed(root);
}

class Closing {
  readonly #root: Schema;
  /** References within which one is: a schema that contains itself stays a reference. */
  readonly #open = new Set<unknown>();

  constructor(root: Schema) {
    this.#root = root;
  }

  /** `node` with its objects closed; `beside` are properties that other schemas give the same value. */
  closed(node: unknown, beside: string[] = []): unknown {
    if (Array.isArray(node)) return node.map((item) => this.closed(item));
    if (!isSchema(node)) return node;
    const target = beside.length > 0 ? this.#target(node) : undefined;
    if (target) return this.#within(node.$ref, () => this.closed(target, beside));
    const entries = Object.entries(node).map(([key, value]): [string, unknown] => {
      const isCombined = combiners.includes(key) && Array.isArray(value);
      return [key, isCombined ? this.#combined(node, key, value, beside) : this.closed(value)];
    });
    const inner: Schema = Object.fromEntries(entries);
    if (node.type === 'object' && isSchema(inner.properties) && !('additionalProperties' in node)) {
      const free = Object.fromEntries([...beside, ...this.#names(node)].map((name) => [name, true]));
      return { ...inner, properties: { ...free, ...inner.properties }, additionalProperties: false };
    }
    return inner;
  }

  #combined(node: Schema, key: string, members: unknown[], beside: string[]): unknown[] {
    // Of `anyOf` and `oneOf` one member holds, and has not the properties of the others.
    const around = key === 'allOf' ? node : { ...node, [key]: [] };
    const names = [...beside, ...this.#names(around)];
    return members.map((member) => this.closed(member, names));
  }

  /** Properties that a schema gives the value it is about, in their order. */
  #names(schema: unknown): string[] {
    if (!isSchema(schema)) return [];
    const names = isSchema(schema.properties) ? Object.keys(schema.properties) : [];
    for (const key of combiners) {
      const members = schema[key];
      if (Array.isArray(members)) for (const member of members) names.push(...this.#names(member));
    }
    const target = this.#target(schema);
    if (target) this.#within(schema.$ref, () => names.push(...this.#names(target)));
    return names;
  }

  #within(ref: unknown, action: () => unknown): unknown {
    this.#open.add(ref);
    const result = action();
    this.#open.delete(ref);
    return result;
  }

  /** What a schema refers to by `#/$defs/Name` or the like, unless one is within that. */
  #target({ $ref }: Schema): Schema | undefined {
    if (typeof $ref !== 'string' || !$ref.startsWith('#') || this.#open.has($ref)) return undefined;
    let node: unknown = this.#root;
    for (const step of $ref.split('/').slice(1)) {
      const key = decodeURIComponent(step).replaceAll('~1', '/').replaceAll('~0', '~');
      node = isSchema(node) ? node[key] : undefined;
    }
    return isSchema(node) ? node : undefined;
  }
}

function isSchema(value: unknown): value is Schema {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
