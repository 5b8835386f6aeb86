/** From the tokens of one text to its characters: decoding, counting, and stop strings, as `gen sample` does it. */

import { EngineError } from "./errors.js";
import { TextReader } from "./tokenizer.js";

/** Symbols without bytes that may follow one another. A model that writes more of them would go on for ever. */
const MAX_EMPTY_SYMBOLS = 100000;

/** A text while it is written. It releases its tokens as soon as no stop string can take their characters back. */
export class RowText {
  /**
   * @param {{length: number, stop: string[], unfinished: number[], tail: string, excess: string}} start `unfinished`
   *     are the first bytes of a character, `tail` the last characters of what stands before, in which a stop string
   *     may begin, and `excess` characters of the last symbol that no longer belonged to it
   */
  constructor({ length, stop, unfinished, tail, excess }) {
    this.length = length;
    this.stop = stop;
    this.reader = new TextReader(unfinished);
    this.tail = tail;
    this.excess = excess;
    this.maxStopLength = Math.max(0, ...stop.map((text) => text.length));
    /** Why the text has ended, or null. */
    this.finish = null;
    this.text = "";
    this.tokens = [];
    this.characters = 0;
    this.pending = "";
    this.waiting = [];
    this.emptyCount = 0;
  }

  /** What a text that goes on from here begins with. */
  get state() {
    return { unfinished: this.reader.unfinished, tail: this.tail, excess: this.excess };
  }

  /** Read a prompt: a stop string that ends in it does not count, and what the text before has left over is lost. */
  readPrompt(prompt) {
    this.reader = new TextReader();
    this.excess = "";
    this.#keepTail(prompt);
  }

  /** Begin with the characters that the text before has left over; they may end this one too. */
  takeExcess() {
    const characters = this.excess;
    this.excess = "";
    if (characters) this.waiting.push({ text: characters, logprob: null, top: [] });
    this.#add(characters);
  }

  /**
   * Take one symbol.
   *
   * @param {Uint8Array} symbol its bytes
   * @param {{logprob: number, top: Array}} token
   */
  feed(symbol, token) {
    this.emptyCount = symbol.length ? 0 : this.emptyCount + 1;
    if (this.emptyCount > MAX_EMPTY_SYMBOLS) {
      throw new EngineError("runtime", "the model writes symbols without any character; another seed may help");
    }
    const characters = this.reader.read(symbol);
    this.waiting.push({ ...token, text: characters });
    this.#add(characters);
  }

  /** End the text because the model has ended it, or nobody wants the rest of it. */
  end(finish) {
    if (finish !== "abort") {
      const rest = this.reader.end();
      if (rest) this.waiting.push({ text: rest, logprob: 0, top: [] });
      this.#add(rest);
    }
    if (!this.finish) this.#finish(finish);
  }

  /** Return the tokens that are now certain, and were not returned before. */
  release() {
    const tokens = [];
    let free = this.#certainLength - this.text.length;
    while (this.waiting.length && this.waiting[0].text.length <= free && (free > 0 || !this.finish)) {
      free -= this.waiting[0].text.length;
      tokens.push(this.waiting.shift());
    }
    // At the end of a text, a symbol of several characters may be cut.
    if (this.finish && free > 0) tokens.push({ ...this.waiting[0], text: this.waiting[0].text.slice(0, free) });
    this.text += tokens.map(({ text }) => text).join("");
    this.tokens.push(...tokens);
    return tokens;
  }

  #certainLength = 0;

  #add(characters) {
    for (const [index, character] of [...characters].entries()) {
      if (this.finish) {
        if (this.finish === "length") this.excess = [...characters].slice(index).join("");
        return;
      }
      this.pending += character;
      this.#keepTail(character);
      const stop = this.#longestStop();
      if (stop) {
        this.pending = this.pending.slice(0, Math.max(0, this.pending.length - stop.length));
        this.#finish("stop");
        return;
      }
      this.characters += 1;
      const readyLength = this.pending.length - Math.min(this.#pendingLength(), this.pending.length);
      this.#certainLength += readyLength;
      this.pending = this.pending.slice(readyLength);
      if (this.characters >= this.length) this.#finish("length");
    }
  }

  #finish(finish) {
    this.#certainLength += this.pending.length;
    this.pending = "";
    this.finish = finish;
  }

  #keepTail(characters) {
    if (this.maxStopLength) this.tail = (this.tail + characters).slice(-this.maxStopLength);
  }

  /** Return the longest stop string that ends here, or undefined. */
  #longestStop() {
    const found = this.stop.filter((text) => this.tail.endsWith(text));
    return found.sort((one, other) => other.length - one.length)[0];
  }

  /** Return how many characters at the end may still become a stop string. */
  #pendingLength() {
    for (let length = Math.min(this.tail.length, this.maxStopLength - 1); length > 0; length--) {
      const end = this.tail.slice(-length);
      if (this.stop.some((text) => text.length > length && text.startsWith(end))) return length;
    }
    return 0;
  }
}
