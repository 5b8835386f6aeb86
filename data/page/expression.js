/**
 * Reads a regular expression as an automaton over bytes that may go several ways at once.
 *
 * It reads what most expressions consist of, as Python's `re` does: characters, `.`, sets, escapes, groups, alternatives
 * and counts. All else is refused by its name. Thompson, "Regular expression search algorithm", 1968, for the automaton.
 */

import { EngineError } from "./errors.js";
import { byteRanges } from "./utf8.js";

/** States of the automaton, at most: counts are written out. */
const MAX_STATES = 2 ** 16;
/** Characters that Python's `\d`, `\s` and `\w` match. */
const CATEGORIES = { d: /^\p{Nd}$/u, s: /^[\t-\r\x1c-\x20\x85\p{Z}]$/u, w: /^[\p{L}\p{N}_]$/u };
const CONTROLS = { a: 0x07, b: 0x08, f: 0x0c, n: 0x0a, r: 0x0d, t: 0x09, v: 0x0b };
/** What begins so cannot be used. */
const REFUSED = [
  [/\(\?(=|!|<=|<!)/y, "look-ahead and look-behind"],
  [/\(\?P=|\\[1-9]/y, "references back to a group"],
  [/\(\?\(/y, "conditions on a group"],
  [/\(\?>/y, "atomic groups"],
  [/\(\?#/y, "comments"],
  [/\(\?[a-zA-Z-]+[:)]/y, "flags such as (?i)"],
  [/\\[bB]/y, "word boundaries"],
  [/\\[0N]/y, "octal escapes and names of characters"],
];

/**
 * Return the automaton of an expression, for whole texts: for each state `edges` has `[low byte, high byte, target]`, and
 * `jumps` has targets that take no byte.
 *
 * @param {string} expression
 * @param {[number, number][]} alphabet ranges of the codes of all characters that sets are about
 * @returns {{edges: number[][][], jumps: number[][], start: number, end: number}}
 * @throws {EngineError} parameter, with the reason alone
 */
export function readExpression(expression, alphabet) {
  const automaton = { edges: [], jumps: [] };
  const end = addState(automaton, []);
  try {
    const start = new Reader(expression, alphabet, automaton).read()(end);
    return { ...automaton, start, end };
  } catch (error) {
    throw error instanceof RangeError ? problem("its groups are nested too deeply") : error;
  }
}

function problem(reason) {
  return new EngineError("parameter", reason);
}

function addState({ edges, jumps }, ownEdges, ownJumps = []) {
  if (edges.length === MAX_STATES) {
    throw problem("it is too large; use smaller counts or fewer alternatives");
  }
  edges.push(ownEdges);
  jumps.push(ownJumps);
  return edges.length - 1;
}

/** Reads an expression. A part of it is a function from the state behind it to the state in front of it. */
class Reader {
  #place = 0;
  #rangesBySet = new Map();

  constructor(source, alphabet, automaton) {
    Object.assign(this, { source, alphabet, automaton });
  }

  read() {
    if (/\p{Surrogate}/u.test(this.source)) {
      throw problem("not text in UTF-8");
    }
    const part = this.#readAlternatives();
    if (this.#place < this.source.length) {
      throw problem(`a ) too many at position ${this.#place}`);
    }
    return part;
  }

  /** Go on behind a pattern, and return what it has matched here, or null. */
  #take(pattern) {
    pattern.lastIndex = this.#place;
    const match = pattern.exec(this.source);
    this.#place += match?.[0].length ?? 0;
    return match;
  }

  #takeCode() {
    const code = this.source.codePointAt(this.#place);
    if (code === undefined) {
      throw problem("it ends too early");
    }
    this.#place += code > 0xffff ? 2 : 1;
    return code;
  }

  #readAlternatives() {
    const parts = [this.#readSequence()];
    while (this.#take(/\|/y)) {
      parts.push(this.#readSequence());
    }
    return parts.length === 1 ? parts[0] : (next) => this.#add([], parts.map((part) => part(next)));
  }

  #readSequence() {
    const parts = [];
    while (this.#place < this.source.length && !/[|)]/.test(this.source[this.#place])) {
      if (!this.#skipAnchor()) {
        parts.push(this.#readCount(this.#readPart()));
      }
    }
    return (next) => parts.reduceRight((state, part) => part(state), next);
  }

  /** Skip an anchor at one of the two ends, where it changes nothing. */
  #skipAnchor() {
    const begin = this.#place;
    if (!this.#take(/\^|\$|\\[AZ]/y)) {
      return false;
    }
    const isAtEnds = /^(\^|\\A)+$/.test(this.source.slice(0, this.#place)) || /^(\$|\\Z)+$/.test(this.source.slice(begin));
    if (!isAtEnds) {
      throw problem("anchors inside of it cannot be used; it always matches the whole text");
    }
    return true;
  }

  #readPart() {
    const refused = REFUSED.find(([pattern]) => this.#take(pattern));
    if (refused) {
      throw problem(`${refused[1]} cannot be used here`);
    }
    const begin = this.#place;
    if (this.#take(/[*+?]|\{(?!\})\d*,?\d*\}/y)) {
      throw problem(`nothing to repeat at position ${begin}`);
    }
    if (this.#take(/\((\?:|\?P<\w+>|(?!\?))/y)) {
      const part = this.#readAlternatives();
      if (!this.#take(/\)/y)) {
        throw problem(`no ) for the ( at position ${begin}`);
      }
      return part;
    }
    if (this.#take(/\(/y)) {
      throw problem(`the group at position ${begin} is none that can be used here`);
    }
    if (this.#take(/\[/y)) {
      return this.#characters(this.#readSet(), this.source.slice(begin, this.#place));
    }
    if (this.#take(/\./y)) {
      return this.#characters((code) => code !== CONTROLS.n, ".");
    }
    const item = this.#readItem(false);
    return typeof item === "number" ? this.#ranges([[item, item]]) : this.#characters(item, this.source.slice(begin, this.#place));
  }

  /** Read a character or an escape: return its code, or for a category the predicate of its codes. */
  #readItem(isInSet) {
    const begin = this.#place;
    if (!this.#take(/\\/y)) {
      return this.#takeCode();
    }
    const category = this.#take(/[dswDSW]/y)?.[0];
    if (category) {
      const pattern = CATEGORIES[category.toLowerCase()];
      const isNegated = category !== category.toLowerCase();
      return (code) => pattern.test(String.fromCodePoint(code)) !== isNegated;
    }
    const digits = this.#take(/x([0-9a-f]{2})|u([0-9a-f]{4})|U(00(?:0[0-9a-f]|10)[0-9a-f]{4})/iy);
    if (digits) {
      return parseInt(digits[0].slice(1), 16);
    }
    const control = this.#take(isInSet ? /[abfnrtv]/y : /[afnrtv]/y)?.[0];
    if (control) {
      return CONTROLS[control];
    }
    if (this.#take(/(?=[a-zA-Z0-9])/y)) {
      throw problem(`${this.source.slice(begin, begin + 2)} at position ${begin} is no escape that can be used here`);
    }
    return this.#takeCode();
  }

  /** Read a set behind its "[", and return the predicate of its codes. */
  #readSet() {
    const isNegated = this.#take(/\^/y) !== null;
    const items = [];
    do {
      const low = this.#readItem(true);
      const isRange = this.#take(/-(?!\])/y) !== null;
      const high = isRange ? this.#readItem(true) : low;
      if (isRange && !(low <= high)) {
        throw problem("a range of a set has no order");
      }
      items.push(typeof low === "number" ? (code) => low <= code && code <= high : low);
    } while (!this.#take(/\]/y));
    return (code) => items.some((item) => item(code)) !== isNegated;
  }

  #readCount(part) {
    const count = this.#take(/[*+?]|\{(?!\})(\d*)(,?)(\d*)\}/y);
    if (!count) {
      return part;
    }
    const [sign, low, comma, high] = count;
    const least = sign === "+" ? 1 : Number(low ?? 0);
    const most = sign === "?" ? 1 : sign === "*" || sign === "+" ? Infinity : comma ? Number(high || Infinity) : least;
    if (least > most || least > MAX_STATES || (most > MAX_STATES && most !== Infinity)) {
      throw problem(least > most ? `the count ${sign} has no order` : "it is too large; use smaller counts");
    }
    this.#take(/\?/y); // whether the shortest or the longest fits first makes no other texts
    if (this.#take(/\+/y)) {
      throw problem("possessive repeats such as a*+ cannot be used here");
    }
    if (this.#take(/[*?]|\{(?!\})\d*,?\d*\}/y)) {
      throw problem(`two counts behind each other at position ${this.#place - 1}`);
    }
    return (next) => this.#repeat(part, least, most, next);
  }

  #repeat(part, least, most, next) {
    let state = next;
    if (most === Infinity) {
      state = this.#add([], [next]);
      this.automaton.jumps[state].push(part(state));
    }
    for (let count = least; count < most && most !== Infinity; count++) {
      state = this.#add([], [part(state), next]);
    }
    for (let count = 0; count < least; count++) {
      state = part(state);
    }
    return state;
  }

  /** Return the part for one of the characters of the alphabet whose codes fit; `source` is what the expression has. */
  #characters(fits, source) {
    if (!this.#rangesBySet.has(source)) {
      const ranges = [];
      for (const [first, last] of this.alphabet) {
        for (let code = first; code <= last; code++) {
          if (!fits(code)) {
            continue;
          }
          if (ranges.at(-1)?.[1] === code - 1) {
            ranges.at(-1)[1] = code;
          } else {
            ranges.push([code, code]);
          }
        }
      }
      this.#rangesBySet.set(source, ranges);
    }
    return this.#ranges(this.#rangesBySet.get(source));
  }

  #ranges(ranges) {
    const sequences = ranges.flatMap(([first, last]) => byteRanges(first, last));
    return (next) => {
      const edges = sequences.map(([[low, high], ...rest]) => {
        const target = rest.reduceRight((state, [least, most]) => this.#add([[least, most, state]]), next);
        return [low, high, target];
      });
      return this.#add(edges);
    };
  }

  #add(edges, jumps) {
    return addState(this.automaton, edges, jumps);
  }
}
