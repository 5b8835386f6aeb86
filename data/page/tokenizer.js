/** From a text to tokens, and from tokens to text, by the metadata of an exported file. A token is the id of a symbol. */

import { EngineError } from "./errors.js";

/** The character that stands for bytes that are no UTF-8. */
const REPLACEMENT = "\ufffd";

export class Tokenizer {
  /** @param {object} metadata as `readMetadata` returns it */
  constructor(metadata) {
    this.name = metadata.tokenizer.name;
    this.unknown = metadata.tokenizer.unknown;
    /** The bytes of each symbol. */
    this.symbols = metadata.token_bytes.map((hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16)));
    /** Each symbol as text; bytes that are no character alone as `\xe2`. */
    this.texts = this.symbols.map(readableSymbol);
    this.tokenByCharacter = new Map();
    this.texts.forEach((text, token) => {
      if (token !== this.unknown && [...text].length === 1) this.tokenByCharacter.set(text, token);
    });
    /** The token that ends a record; null in a model of one text. It has no bytes, and its text is "". */
    this.boundary = metadata.records?.boundary ?? null;
    /** Whether every symbol of a text is one character. */
    this.isPerCharacter = this.symbols.every(
      (symbol, token) => token === this.boundary || (symbol.length && [...this.texts[token]].length === 1),
    );
  }

  /**
   * Return the tokens of a text.
   *
   * @param {string} text
   * @param {"error" | "skip" | "unknown"} policy what to do about characters that the model does not know
   * @returns {number[]}
   * @throws {EngineError} prime
   */
  encode(text, policy = "error") {
    if (!text) return [];
    if (this.name === "byte") return [...new TextEncoder().encode(text.replace(/\p{Surrogate}/gu, "?"))];
    if (this.name !== "char") {
      const message = `the tokenizer ${this.name} is a plugin's, which runs in Python alone; leave the prompt empty`;
      throw new EngineError("prime", message);
    }
    const characters = [...text];
    const tokens = characters.map((character) => this.tokenByCharacter.get(character));
    const position = tokens.indexOf(undefined);
    if (position < 0) return tokens;
    if (policy === "skip") return tokens.filter((token) => token !== undefined);
    if (policy === "unknown" && this.unknown !== null) return tokens.map((token) => token ?? this.unknown);
    const first = `${JSON.stringify(characters[position])} at position ${position}`;
    const advice = policy === "unknown" ? "there is no unknown symbol; leave it out" : "leave it out";
    const count = this.symbols.length - (this.boundary === null ? 0 : 1);
    throw new EngineError("prime", `the model's ${count} symbols do not include ${first}; ${advice}`);
  }
}

/** Return the bytes of a symbol as text; bytes that are no UTF-8 as `\xe2`. */
function readableSymbol(symbol) {
  try {
    return new TextDecoder("utf-8", { ignoreBOM: true, fatal: true }).decode(symbol);
  } catch {
    return [...symbol].map((byte) => (byte < 0x80 ? String.fromCharCode(byte) : `\\x${byte.toString(16)}`)).join("");
  }
}

/**
 * A decoder of UTF-8 in pieces, whose state is a few bytes that can be copied. Wrong bytes become U+FFFD, as in Python.
 *
 * The bytes of an unfinished character are held back and decoded again with those that follow them.
 */
export class TextReader {
  /** @param {number[]} unfinished the first bytes of a character: the state of another reader */
  constructor(unfinished = []) {
    this.unfinished = unfinished;
  }

  /** Return the characters that further bytes complete. */
  read(bytes) {
    const all = [...this.unfinished, ...bytes];
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(all), { stream: true });
    this.unfinished = all.slice(all.length - unfinishedLength(all));
    return text;
  }

  /** Return what is left where no byte follows: U+FFFD for an unfinished character. */
  end() {
    const text = this.unfinished.length ? REPLACEMENT : "";
    this.unfinished = [];
    return text;
  }
}

/** Return how many bytes at the end begin a character that further bytes can complete: 0 to 3. */
function unfinishedLength(bytes) {
  for (let length = 1; length <= Math.min(3, bytes.length); length++) {
    const [lead, second] = bytes.slice(bytes.length - length);
    if (lead < 0x80) return 0;
    if (lead < 0xc0) continue; // a byte within a character
    const size = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    return length < size && (length < 2 || isSecondByte(lead, second)) ? length : 0;
  }
  return 0;
}

/** Return whether a second byte can follow: it excludes overlong forms, surrogates and what lies beyond Unicode. */
function isSecondByte(lead, byte) {
  const low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
  const high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
  return low <= byte && byte <= high;
}
