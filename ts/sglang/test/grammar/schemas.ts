/** Two hundred schemas: forty by hand, each in five surroundings. */
type Schema = Record<string, unknown>;

const object = (properties: Record<string, Schema>, optional: string[] = []): Schema => ({
  type: 'object',
  properties,
  required: Object.keys(properties).filter((key) => !optional.includes(key)),
  additionalProperties: false,
});
const text: Schema = { type: 'string', maxLength: 6 };
const digit: Schema = { type: 'integer', minimum: 0, maximum: 9 };

const parts: Schema[] = [
  { type: 'null' },
  { type: 'boolean' },
  { type: 'integer', minimum: -20, maximum: 300 },
  { type: 'integer', exclusiveMinimum: 7, exclusiveMaximum: 1000, multipleOf: 5 },
  { type: 'number', minimum: 0, maximum: 1 },
  { type: 'number', exclusiveMinimum: -2.5, maximum: 2.5 },
  text,
  { type: 'string', minLength: 2, maxLength: 4 },
  { type: 'string', pattern: '^[a-z]{1,5}$' },
  { type: 'string', pattern: '^\\d{3}-\\w+$', maxLength: 9 },
  { type: 'string', pattern: '^(?=.*[0-9])[a-z0-9]{1,2}$' },
  { enum: ['red', 'green', 'blue'] },
  { enum: [1, 'one', null, true, [1], { one: 1 }] },
  { const: 'fixed' },
  { const: { a: [1, 'b', null] } },
  { type: ['string', 'null'], maxLength: 3 },
  { type: 'array', items: digit, maxItems: 3 },
  { type: 'array', items: { type: 'boolean' }, minItems: 2, maxItems: 2 },
  { type: 'array', prefixItems: [digit, text], items: false, minItems: 2 },
  { type: 'array', items: { enum: ['a', 'b', 'c', 'd', 'e'] }, maxItems: 2, uniqueItems: true },
  { type: 'array', items: digit, contains: { const: 1 }, minItems: 1, maxItems: 2 },
  object({ a: digit, b: text }),
  object({ a: digit, b: text, c: { type: 'boolean' } }, ['b', 'c']),
  object({ outer: object({ inner: digit }) }),
  object({ list: { type: 'array', items: object({ k: { type: 'boolean' } }), maxItems: 2 } }),
  object({ 'a "quoted" key': digit, 'ключ/~': { type: 'null' } }),
  { anyOf: [digit, { type: 'boolean' }, { const: 'x' }] },
  {
    oneOf: [
      { type: 'integer', minimum: 0, maximum: 99 },
      { type: 'string', maxLength: 2 },
    ],
  },
  {
    oneOf: [
      { type: 'integer', multipleOf: 2, minimum: 0, maximum: 20 },
      { type: 'integer', multipleOf: 3, minimum: 0, maximum: 20 },
    ],
  },
  { allOf: [{ type: 'integer', minimum: 3 }, { maximum: 12 }] },
  { allOf: [object({ a: digit }), { properties: { a: { minimum: 4 } } }] },
  { type: 'integer', minimum: 0, maximum: 50, not: { multipleOf: 10 } },
  {
    ...object({ kind: { enum: ['a', 'b'] }, n: digit }, ['n']),
    if: { properties: { kind: { const: 'a' } } },
    then: { required: ['n'] },
  },
  { ...object({ a: digit, b: digit }, ['a', 'b']), dependentRequired: { a: ['b'] } },
  { type: 'object', additionalProperties: digit, maxProperties: 1, propertyNames: { maxLength: 3 } },
  { type: 'object', patternProperties: { '^x[0-9]$': digit }, additionalProperties: false, maxProperties: 2 },
  {
    $ref: '#/$defs/tree',
    $defs: { tree: object({ v: digit, next: { anyOf: [{ $ref: '#/$defs/tree' }, { type: 'null' }] } }) },
  },
  object({
    name: text,
    age: { type: 'integer', minimum: 0, maximum: 120 },
    tags: { type: 'array', items: text, maxItems: 2 },
  }),
  object({
    latitude: { type: 'number', minimum: -90, maximum: 90 },
    longitude: { type: 'number', minimum: -180, maximum: 180 },
  }),
  object({ id: { type: 'string', pattern: '^[0-9a-f]{8}$' }, ok: { type: 'boolean' } }),
];

/** References are to the root: what holds them stands beside the surroundings' own keywords. */
function within(part: Schema, surround: (inner: Schema) => Schema): Schema {
  const { $defs, ...inner } = part;
  return { ...surround(inner), ...($defs !== undefined && { $defs }) };
}

export const schemas: readonly Schema[] = parts.flatMap((part) => [
  part,
  within(part, (value) => object({ value })),
  within(part, (items) => ({ type: 'array', items, minItems: 1, maxItems: 2 })),
  within(part, (inner) => ({ anyOf: [{ type: 'null' }, inner] })),
  within(part, (value) => object({ before: { type: 'boolean' }, value, after: { const: 0 } }, ['before'])),
]);
