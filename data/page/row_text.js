/** From the tokens of one text to its characters: decoding, counting, and stop strings, as `gen sample` does it. */

import { EngineError } from "./errors.js";
import { TextReader } from "./tokenizer.js";

/** Symbols without bytes that may follow one another. A model that writes more of them would go on for ever. */
const MAX_EMPTY_SYMBOLS = 100000;

/** A text while it is written. It releases its tokens as soon as no stop string can take their characters back. */
export class RowText {
  /**
   * @param {{length: number, stop: string[], unfinished: number[], tail: string, heldBack: string}} start `unfinished`
   *     are the first bytes of a character, `tail` the last characters of what stands before, in which a stop string
   *     may begin, and `heldBack` characters that the model has written behind the end of the text before
   */
  constructor({ length, stop, unfinished, tail, heldBack }) {
    this.length = length;
    this.stop = stop;
    this.reader = new TextReader(unfinished);
    this.tail = tail;
    this.heldBack = heldBack;
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
    // What may become a stop string is not in the text yet: whoever goes on reads it once more.
    const before = this.tail.slice(0, this.tail.length - this.pending.length);
    return { unfinished: this.reader.unfinished, tail: before, heldBack: this.pending + this.heldBack };
  }

  /**
   * Read a prompt. What the text before has held back stands in front of it, and does not count; a stop string that ends
   * in the prompt does not count either.
   */
  readPrompt(prompt) {
    const before = this.heldBack + this.reader.end();
    this.heldBack = "";
    if (before) this.waiting.push({ text: before, logprob: null, top: [] });
    this.#certainLength += before.length;
    this.reader = new TextReader();
    this.#keepTail(before + prompt);
  }

  /** Begin with the characters that the text before has held back; they may end this one too. */
  takeHeldBack() {
    const characters = this.heldBack;
    this.heldBack = "";
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

  /** End the text where the model has ended it. */
  end(finish) {
    const rest = this.reader.end();
    if (rest) this.waiting.push({ text: rest, logprob: 0, top: [] });
    this.#add(rest);
    if (!this.finish) this.#finish(finish);
  }

  /**
   * End a record with its boundary symbol, whose text is "", or the sign for a character that is not whole.
   *
   * @param {{logprob: number, top: Array}} token
   */
  endRecord(token) {
    const rest = this.reader.end();
    this.waiting.push({ ...token, text: rest });
    this.#add(rest);
    if (!this.finish) this.#finish("end");
  }

  /** End the text where it is, because nobody wants the rest of it. What may become a stop string is not shown. */
  abort() {
    this.finish = "abort";
  }

  /** Return the tokens that are now certain, and were not returned before. */
  release() {
    const tokens = [];
    let free = this.#certainLength - this.text.length;
    const takesEmpty = !this.finish || this.finish === "end";
    while (this.waiting.length && this.waiting[0].text.length <= free && (free > 0 || takesEmpty)) {
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
        if (this.finish === "length") this.heldBack = [...characters].slice(index).join("");
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
