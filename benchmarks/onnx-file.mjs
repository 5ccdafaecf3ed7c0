/**
 * ONNX files, as far as benchmarks need them: a graph as bytes of its protocol buffer.
 * Numbers of fields: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
 *
 * @typedef {{ op: string, inputs: string[], outputs: string[], domain?: string, attributes?: Record<string, number | number[]> }} Node
 * @typedef {{ name: string, shape: number[], type: number, bytes: Buffer }} Constant
 * @typedef {{ name: string, shape: (number | string)[], type: number }} Value  a named length may vary
 */
export const FLOAT = 1;
export const UINT8 = 2;
export const INT32 = 6;
export const INT64 = 7;

const IR_VERSION = 10;
/** Operators of ONNX, and those that only onnxruntime has. */
const OPERATORS = { '': 17, 'com.microsoft': 1 };

/**
 * @param {{ nodes: Node[], constants: Constant[], inputs: Value[], outputs: Value[] }} graph
 * @returns {Buffer}
 */
export function onnxModel({ nodes, constants, inputs, outputs }) {
  const graph = [
    ...nodes.map((each) => field(1, node(each))),
    field(2, 'benchmark'),
    ...constants.map((each) => field(5, constant(each))),
    ...inputs.map((each) => field(11, value(each))),
    ...outputs.map((each) => field(12, value(each))),
  ];
  const operators = Object.entries(OPERATORS).map(([domain, version]) =>
    field(8, [field(1, domain), field(2, version)]),
  );
  return Buffer.concat([field(1, IR_VERSION), field(7, graph), ...operators]);
}

function node({ op, inputs, outputs, domain = '', attributes = {} }) {
  return [
    ...inputs.map((name) => field(1, name)),
    ...outputs.map((name) => field(2, name)),
    field(4, op),
    ...Object.entries(attributes).map((entry) => field(5, attribute(entry))),
    field(7, domain),
  ];
}

/** Kinds of attributes: a float, an integer, integers. What is not a whole number is a float. */
function attribute([name, content]) {
  if (Array.isArray(content)) return [field(1, name), ...content.map((each) => field(8, each)), field(20, 7)];
  if (Number.isInteger(content)) return [field(1, name), field(3, content), field(20, 2)];
  return [field(1, name), float(2, content), field(20, 1)];
}

function constant({ name, shape, type, bytes }) {
  return [...shape.map((length) => field(1, length)), field(2, type), field(8, name), field(9, bytes)];
}

function value({ name, shape, type }) {
  const dimension = (length) => field(1, [typeof length === 'string' ? field(2, length) : field(1, length)]);
  const tensor = [field(1, type), field(2, shape.map(dimension))];
  return [field(1, name), field(2, [field(1, tensor)])];
}

/** A field of a protocol buffer: a number, or text, bytes or fields with their length before them. */
function field(number, content) {
  if (typeof content === 'number') return Buffer.concat([varint(8 * number), varint(content)]);
  const bytes = Array.isArray(content) ? Buffer.concat(content) : Buffer.from(content);
  return Buffer.concat([varint(8 * number + 2), varint(bytes.length), bytes]);
}

function float(number, content) {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(content);
  return Buffer.concat([varint(8 * number + 5), bytes]);
}

/** Seven bits a byte, the low ones first; a negative number as its 64-bit two's complement. */
function varint(value) {
  const bytes = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  return Buffer.from([...bytes, Number(rest)]);
}
