/** The document: a tree of pieces of text. A text is the way from the root to a piece. */

import { changeRuns, commonLength, findChange, sliceRuns } from "./authors.js";
import { Piece } from "./piece.js";

export class Tree {
  root = new Piece(null, "");
  current = this.root;
  #past = [];
  #future = [];

  get text() {
    return this.current.fullText;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  /** All pieces but the root, parents before their children; what a split has cut off stands behind its beginning. */
  get pieces() {
    const pieces = [];
    const collect = (piece) => piece.children.forEach((child) => (pieces.push(child), collect(child)));
    collect(this.root);
    return pieces;
  }

  /** Remember where we are, so that `undo` comes back here. */
  remember() {
    this.#past.push(this.#place());
    this.#future = [];
  }

  undo() {
    this.#travel(this.#past, this.#future);
  }

  redo() {
    this.#travel(this.#future, this.#past);
  }

  #place() {
    const { runs, isEnded } = this.current;
    return { piece: this.current, text: this.text, runs, isEnded };
  }

  #travel(from, to) {
    if (from.length > 0) {
      to.push(this.#place());
      const { piece, text, runs, isEnded } = from.pop();
      const fits = (each) => each.fullText === text && commonLength(each.runs, runs) === text.length;
      const isThere = this.#holds(piece) && fits(piece) && piece.isEnded === isEnded;
      const place = isThere ? piece : this.find(fits, isEnded);
      if (place) {
        this.walk(place);
      } else {
        this.#become(runs); // what was typed and taken back is no longer in the tree
      }
    }
  }

  #holds(piece) {
    return piece === this.root || (piece.parent.children.includes(piece) && this.#holds(piece.parent));
  }

  /** Return a piece that fits, or undefined; where some have the same text, one that is the end of a record or not. */
  find(fits, isEnded) {
    const pieces = [this.root, ...this.pieces].filter(fits);
    return pieces.find((piece) => piece.isEnded === isEnded) ?? pieces[0];
  }

  /** Go to a piece. */
  walk(piece) {
    this.current = piece;
    for (let child = piece; child.parent; child = child.parent) {
      child.parent.lastChild = child;
    }
  }

  /** Go on below a piece, with a new one. */
  grow(parent, text, request = null, isByModel = request !== null) {
    const piece = new Piece(parent, text, request, 0, isByModel);
    parent.children.push(piece);
    this.walk(piece);
    return piece;
  }

  /** End the record here; `ending` is the token of its boundary symbol, or null. */
  end(ending) {
    const end = this.current.children.find((child) => child.isEnded && child.text === "");
    if (end) {
      this.walk(end);
    } else {
      Object.assign(this.grow(this.current, ""), { finish: "end", ending });
    }
  }

  /** Take a piece without children out of the tree. */
  remove(piece) {
    const { parent } = piece;
    parent.children = parent.children.filter((child) => child !== piece);
    parent.lastChild = parent.children.at(-1) ?? null;
    if (this.current === piece) {
      this.walk(parent);
    }
  }

  /**
   * Make the text another one, as somebody has typed. What both begin with stays; what differs is a branch of its own,
   * in which what stands behind the change keeps its author. `caret` and `selection` are those of `findChange`.
   */
  edit(text, caret = text.length, selection = null) {
    this.#become(changeRuns(this.current.runs, findChange(this.text, text, caret, selection)));
  }

  /** Make the text that of some runs. */
  #become(runs) {
    this.#removeDraft();
    const length = commonLength(this.current.runs, runs);
    const rest = sliceRuns(runs, length);
    if (rest.length === 0 && length === this.text.length) {
      return; // what was typed is taken back
    }
    const parent = this.locate(length);
    this.walk(findBelow(parent, rest) ?? parent);
    if (this.current === parent) {
      rest.forEach(({ text, isByModel }) => this.grow(this.current, text, null, isByModel));
    }
  }

  /** Take out what no engine wrote at the end of the text, where nothing else is below it. */
  #removeDraft() {
    const { current } = this;
    const isDraft = ({ parent, children, isWritten, isEnded }) => parent && !isWritten && !isEnded && children.length === 0;
    while (isDraft(this.current)) {
      this.remove(this.current);
    }
    if (this.current !== current) {
      this.#heal(this.current);
    }
  }

  /**
   * Return the piece of the current text that ends behind so many characters. A longer one is split there, and one that
   * ends a record in front of its end: something else may stand there.
   */
  locate(length) {
    let begin = 0;
    for (const piece of this.current.path) {
      if (length <= begin) {
        break;
      }
      if (length < begin + piece.text.length) {
        this.#split(piece, length - begin);
        return piece;
      }
      begin += piece.text.length;
      if (length === begin) {
        if (piece.isEnded) {
          this.#split(piece, piece.text.length);
        }
        return piece;
      }
    }
    return this.root;
  }

  /** Give the characters from `begin` on, which the model has read, their tokens. */
  setTokens(begin, tokens) {
    let start = 0;
    for (const piece of this.current.path) {
      const own = tokensBetween(tokens, start - begin, start - begin + piece.text.length);
      if (piece.tokens.length === 0 && joinTexts(own) === piece.text) {
        piece.tokens = own;
      }
      start += piece.text.length;
    }
  }

  #split(piece, length) {
    const rest = new Piece(piece, piece.text.slice(length), piece.request, piece.begin + length, piece.isByModel);
    Object.assign(rest, { children: piece.children, lastChild: piece.lastChild });
    Object.assign(rest, { session: piece.session, finish: piece.finish, ending: piece.ending });
    rest.children.forEach((child) => (child.parent = rest));
    rest.tokens = tokensBetween(piece.tokens, length, piece.text.length);
    piece.tokens = tokensBetween(piece.tokens, 0, length);
    Object.assign(piece, { text: piece.text.slice(0, length), children: [rest], lastChild: rest });
    Object.assign(piece, { session: null, finish: "split", ending: null });
    if (this.current === piece) {
      this.current = rest;
    }
  }

  /** Join a piece with its rest where nothing else is below it any longer. */
  #heal(piece) {
    const [rest] = piece.children;
    if (piece.children.length !== 1 || this.current === rest || !piece.continuesAs(rest)) {
      return;
    }
    const { children, lastChild, session, finish, ending } = rest;
    Object.assign(piece, { children, lastChild, session, finish, ending, text: piece.text + rest.text });
    piece.tokens = [...piece.tokens, ...rest.tokens];
    piece.children.forEach((child) => (child.parent = piece));
  }
}

/** Return the tokens of which some character stands between two places; a token that only begins there is cut. */
export function tokensBetween(tokens, begin, end) {
  const found = [];
  let start = 0;
  for (const token of tokens) {
    const next = start + token.text.length;
    if (next > begin && start < end) {
      const isCut = start < begin || next > end;
      found.push(isCut ? { ...token, text: token.text.slice(Math.max(0, begin - start), end - start) } : token);
    }
    start = next;
  }
  return found;
}

export function joinTexts(tokens) {
  return tokens.map((token) => token.text).join("");
}

/** Return the piece below another at which these runs end, or null; there is none where nothing is left of them. */
function findBelow(piece, runs) {
  for (const child of piece.children) {
    const isBeginning = runs[0]?.isByModel === child.isByModel && runs[0].text.startsWith(child.text);
    if (isBeginning && child.text !== "") {
      const rest = sliceRuns(runs, child.text.length);
      const end = rest.length === 0 ? child : findBelow(child, rest);
      if (end !== null) {
        return end;
      }
    }
  }
  return null;
}
