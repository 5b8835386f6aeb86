/** The document: a tree of pieces of text. A text is the way from the root to a piece. */

let nextNumber = 0;

/** A part of a text, which was typed or written in one go. */
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
   * @param {object | null} request what the engine was asked for; null: typed
   * @param {number} begin where the text begins within what the request has written
   */
  constructor(parent, text, request = null, begin = 0) {
    Object.assign(this, { parent, text, request, begin });
  }

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

  get fullText() {
    return this.path.map((piece) => piece.text).join("");
  }

  /** Return whether another piece is the rest of what the same request has written. */
  continuesAs(other) {
    return this.isWritten && this.request === other.request && this.end === other.begin;
  }
}

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
    return { piece: this.current, text: this.text, isEnded: this.current.isEnded };
  }

  #travel(from, to) {
    if (from.length > 0) {
      to.push(this.#place());
      const { piece, text, isEnded } = from.pop();
      const isThere = this.#holds(piece) && piece.fullText === text && piece.isEnded === isEnded;
      const place = isThere ? piece : this.find((each) => each.fullText === text, isEnded);
      if (place) {
        this.walk(place);
      } else {
        this.edit(text); // what was typed and taken back is no longer in the tree
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
  grow(parent, text, request = null) {
    const piece = new Piece(parent, text, request);
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

  /** Make the text another one: what both begin with stays, and what differs is typed in a branch of its own. */
  edit(text) {
    const draft = this.current;
    if (!draft.isWritten && draft.parent && draft.children.length === 0) {
      const before = draft.parent.fullText;
      if (text.startsWith(before) && text.length > before.length) {
        draft.text = text.slice(before.length);
        draft.tokens = draft.tokens.length > 0 ? [] : draft.tokens;
        draft.session = null;
        return;
      }
      this.remove(draft);
      this.#heal(this.current);
    }
    if (text === this.text) {
      return; // what was typed is taken back
    }
    const length = commonLength(this.text, text);
    const parent = this.locate(length);
    this.walk(parent);
    if (length < text.length) {
      this.grow(parent, text.slice(length));
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
    const rest = new Piece(piece, piece.text.slice(length), piece.request, piece.begin + length);
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

/** Return how many characters two texts have in common at their beginnings; surrogate pairs are never cut. */
function commonLength(first, second) {
  let length = 0;
  while (length < first.length && length < second.length && first[length] === second[length]) {
    length += 1;
  }
  return length > 0 && /[\uD800-\uDBFF]/.test(first[length - 1]) ? length - 1 : length;
}
