/**
 * Reads an exported .onnx file: its metadata, its check, and its graph as far as inputs with a default go.
 *
 * The file is a protobuf message, a sequence of fields. Sources: protobuf.dev/programming-guides/encoding, onnx.proto.
 */

import { EngineError } from "./errors.js";

/** The version of the format that these modules read: `gentext.format` in the metadata. */
export const FORMAT_VERSION = "4";
const INTEGER_TYPE = 0;
const BYTES_TYPE = 2;
/** Numbers of fields: of a ModelProto, a GraphProto, and of what stands in them. */
const [GRAPH, METADATA] = [7, 14];
const [INITIALIZER, INPUT] = [5, 11];
const [TENSOR_SIZES, TENSOR_TYPE, TENSOR_NAME, TENSOR_CONTENT, INPUT_NAME] = [1, 2, 8, 9, 1];
/** Types of tensors by their number: the name that onnxruntime's JavaScript builds have, and the array of elements. */
const TENSOR_TYPES = { 1: ["float32", Float32Array], 7: ["int64", BigInt64Array], 9: ["bool", Uint8Array] };
const [ENTRY_KEY, ENTRY_TEXT] = [1, 2];
/** The metadata entry with the CRC-32 of the file, and what its digits count as. */
const CHECK_KEY = "gentext.check";
const ZERO_DIGITS = "00000000";
const ADVICE = "export it again: gen export RUN --web DIR";

/**
 * Yield `{number, integer, start, begin, end}` of each field: where it starts, and where its content begins and ends.
 * `integer` is what a field holds that has no content.
 */
function* readFields(bytes, from = 0, to = bytes.length) {
  let position = from;
  const readInteger = () => {
    let integer = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (position >= to) throw new RangeError("it ends within a number");
      const byte = bytes[position++];
      integer += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return integer;
    }
    throw new RangeError("a number of more than ten bytes");
  };
  while (position < to) {
    const start = position;
    const tag = readInteger();
    const [number, type] = [Math.floor(tag / 8), tag % 8];
    if (!number || (type !== INTEGER_TYPE && type !== BYTES_TYPE)) throw new RangeError("not a field of a model");
    const integer = readInteger();
    const begin = position;
    if (type === BYTES_TYPE) position += integer;
    if (position > to) throw new RangeError("a field is longer than the file");
    yield { number, integer, start, begin, end: position };
  }
}

const readText = (bytes, { begin, end }) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes.subarray(begin, end));

/** Return the text of the first field with a number, and where it begins. */
function findText(bytes, { begin, end }, number) {
  for (const field of readFields(bytes, begin, end)) {
    if (field.number === number) return { text: readText(bytes, field), begin: field.begin };
  }
  return { text: "", begin: end };
}

/**
 * Return the metadata of an exported generator: its JSON entries parsed, under their names without "gentext.".
 *
 * @param {Uint8Array} bytes the file
 * @param {string} name of the file, for messages
 * @throws {EngineError} not_generator, format or damaged
 */
export function readMetadata(bytes, name) {
  const entries = new Map();
  try {
    for (const field of readFields(bytes)) {
      if (field.number !== METADATA) continue;
      entries.set(findText(bytes, field, ENTRY_KEY).text, findText(bytes, field, ENTRY_TEXT));
    }
  } catch (error) {
    throw new EngineError("damaged", `${name} is damaged, or no .onnx file (${error.message}); ${ADVICE}`);
  }
  const version = entries.get("gentext.format")?.text;
  if (version === undefined) throw new EngineError("not_generator", `${name} was not made by gentext; ${ADVICE}`);
  if (version !== FORMAT_VERSION) {
    const message = `${name} has the file format ${version.slice(0, 20)}, expected ${FORMAT_VERSION}; ${ADVICE}`;
    throw new EngineError("format", message);
  }
  verifyCheck(bytes, entries.get(CHECK_KEY), name);
  const kind = entries.get("gentext.kind")?.text;
  if (kind !== "generator") {
    throw new EngineError("not_generator", `${name} is a ${kind}, not a generator.onnx; ${ADVICE}`);
  }
  const parse = (key) => JSON.parse(entries.get(`gentext.${key}`).text);
  let metadata;
  try {
    const keys = ["token_bytes", "start", "states", "tokenizer", "chain", "card", "records"];
    metadata = Object.fromEntries(keys.map((key) => [key, parse(key)]));
  } catch {
    throw new EngineError("damaged", `${name} is damaged: its metadata are not complete; ${ADVICE}`);
  }
  checkBoundary(metadata, name);
  return metadata;
}

/** Check the boundary symbol of a model of records, on which it depends that a text ends. */
function checkBoundary({ records, start, token_bytes: symbols }, name) {
  if (records === null) return;
  const last = symbols.length - 1;
  if (records.boundary !== last || start !== last || symbols[last] !== "") {
    throw new EngineError("damaged", `${name} is damaged: its boundary symbol is not the last one, without bytes; ${ADVICE}`);
  }
}

function verifyCheck(bytes, check, name) {
  const digits = check?.text ?? "";
  if (digits.length === ZERO_DIGITS.length) {
    const zeros = new TextEncoder().encode(ZERO_DIGITS);
    let crc = addBytes(0xffffffff, bytes.subarray(0, check.begin));
    crc = addBytes(crc, zeros);
    crc = addBytes(crc, bytes.subarray(check.begin + zeros.length));
    if (digits === ((crc ^ 0xffffffff) >>> 0).toString(16).padStart(8, "0")) return;
  }
  throw new EngineError("damaged", `${name} is damaged: its bytes do not fit its check; ${ADVICE}`);
}

/** The CRC-32 of zlib, one byte at a time. */
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

function addBytes(crc, bytes) {
  for (let index = 0; index < bytes.length; index++) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ bytes[index]) & 0xff];
  return crc;
}

/**
 * Return the file without the defaults of its inputs, so that every input must be fed, and the defaults.
 *
 * onnxruntime's JavaScript builds refuse to feed an input that has a default, as the parameters of the links have. In
 * the file, a default is an initializer with the name of an input.
 *
 * @param {Uint8Array} bytes
 * @returns {{bytes: Uint8Array, defaults: Object<string, {type: string, dims: number[], data: ArrayBufferView}>}}
 */
export function splitDefaults(bytes) {
  const graph = [...readFields(bytes)].find((field) => field.number === GRAPH);
  const fields = [...readFields(bytes, graph.begin, graph.end)];
  const inputs = new Set(
    fields.filter(({ number }) => number === INPUT).map((field) => findText(bytes, field, INPUT_NAME).text),
  );
  const defaults = {};
  const otherFields = fields.filter((field) => {
    const name = field.number === INITIALIZER ? findText(bytes, field, TENSOR_NAME).text : null;
    if (!inputs.has(name)) return true;
    defaults[name] = readTensor(bytes, field);
    return false;
  });
  const parts = otherFields.map(({ start, end }) => bytes.subarray(start, end));
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  const header = Uint8Array.of((GRAPH << 3) | BYTES_TYPE, ...encodeInteger(size));
  const withoutDefaults = joinBytes([bytes.subarray(0, graph.start), header, ...parts, bytes.subarray(graph.end)]);
  return { bytes: withoutDefaults, defaults };
}

/** Return a TensorProto, whose elements lie in its `raw_data`, as gentext writes them. */
function readTensor(bytes, { begin, end }) {
  const fields = [...readFields(bytes, begin, end)];
  const dims = fields.filter(({ number }) => number === TENSOR_SIZES).map(({ integer }) => integer);
  const [type, ElementArray] = TENSOR_TYPES[fields.find(({ number }) => number === TENSOR_TYPE).integer];
  const content = fields.find(({ number }) => number === TENSOR_CONTENT) ?? { begin: end, end };
  return { type, dims, data: new ElementArray(bytes.slice(content.begin, content.end).buffer) };
}

function encodeInteger(integer) {
  const encoded = [];
  for (; integer >= 0x80; integer = Math.floor(integer / 128)) encoded.push((integer % 128) | 0x80);
  return [...encoded, integer];
}

/** Return arrays of bytes as one. */
export function joinBytes(parts) {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let position = 0;
  for (const part of parts) {
    joined.set(part, position);
    position += part.length;
  }
  return joined;
}
