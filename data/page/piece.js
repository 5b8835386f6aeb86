/** The parts of which the tree of texts consists. */

import { joinRuns } from "./authors.js";

let nextNumber = 0;

/** A part of a text by one author, which was typed or written in one go, or kept behind a change. */
export class Piece {
  children = [];
  /** The child through which the way last went. */
  lastChild = null;
  /** The state of the engine behind the piece; null where there is none. */
  session = null;
  /** Why the engine stopped; null while it writes, and for what was typed. */
  finish = null;
  /** Tokens whose texts are the text, or none where the model has not read it. */
  tokens = [];
  /** The token of the boundary symbol behind the text of a record that has ended; null where it is not known. */
  ending = null;
  number = nextNumber++;

  /**
   * @param {Piece | null} parent
   * @param {string} text
   * @param {object | null} request what the engine was asked for; null: typed, or kept from what it wrote elsewhere
   * @param {number} begin where the text begins within what the request has written
   * @param {boolean} isByModel whether the model wrote the characters, here or where they were kept from
   */
  constructor(parent, text, request = null, begin = 0, isByModel = request !== null) {
    Object.assign(this, { parent, text, request, begin, isByModel });
  }

  /** Whether the engine wrote it here, so that the same request writes it again. */
  get isWritten() {
    return this.request !== null;
  }

  /** Whether it is the end of a record, behind which nothing stands. */
  get isEnded() {
    return this.finish === "end";
  }

  /** Where the text ends within what the request has written. */
  get end() {
    return this.begin + this.text.length;
  }

  /** The pieces from the first one to this one; the root is none. */
  get path() {
    const path = [];
    for (let piece = this; piece.parent; piece = piece.parent) {
      path.unshift(piece);
    }
    return path;
  }

  get runs() {
    return joinRuns(this.path);
  }

  get fullText() {
    return this.path.map((piece) => piece.text).join("");
  }

  /** Return whether another piece is the rest of what the same request has written. */
  continuesAs(other) {
    return this.isWritten && this.request === other.request && this.end === other.begin;
  }
}
