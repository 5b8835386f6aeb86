/** Where the text stands: a transparent textarea, in which one writes, over the coloured text that one sees. */

import { levelOf, surpriseOf } from "./surprise.js";
import { Vocabulary } from "./vocabulary.js";

/** Milliseconds within which most of the characters that wait appear, however long a frame takes. */
const APPEARING = 130;
/** Milliseconds after which the end of a text is shown at once. */
const MOST_SETTLING = 700;
/** Pixels from the end of the page within which it follows a text that grows. */
const FOLLOW_DISTANCE = 160;

export class Surface {
  #views = [];
  /** How many characters are shown; while a text is written, fewer than there are. */
  #shown = 0;
  #isGrowing = false;
  #frame = 0;
  #drawnAt = 0;
  #vocabulary = new Vocabulary();
  #motion = matchMedia("(prefers-reduced-motion: reduce)");

  /**
   * @param {{backdrop: HTMLElement, textarea: HTMLTextAreaElement}} elements
   * @param {Tree} tree
   * @param {{onEdit: (text: string, caret: number, selection: object) => void}} handlers
   */
  constructor({ backdrop, textarea }, tree, { onEdit }) {
    Object.assign(this, { backdrop, textarea, tree });
    this.backdrop.append("\u200b"); // the line behind a line end has a height too
    let selection = null;
    textarea.addEventListener("beforeinput", () => {
      selection = { begin: textarea.selectionStart, end: textarea.selectionEnd };
    });
    textarea.addEventListener("input", () => onEdit(textarea.value, textarea.selectionEnd, selection));
  }

  /** Mark the characters that are not in this vocabulary. */
  use(vocabulary) {
    this.#vocabulary = vocabulary;
    this.#views.splice(0).forEach((view) => view.element.remove());
    this.render();
  }

  /** Show a text that grows, a few characters in each frame; all of them for those who want no motion. */
  grow() {
    this.#isGrowing = true;
    this.textarea.readOnly = true;
    if (document.hidden) {
      this.#shown = this.tree.text.length;
      this.#draw();
    } else if (this.#frame === 0) {
      this.#drawnAt = performance.now();
      this.#frame = requestAnimationFrame((now) => this.#advance(now));
    }
  }

  /** Show the current text at once. */
  render() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#isGrowing = false;
    this.textarea.readOnly = false;
    this.#shown = this.tree.text.length;
    this.#draw();
  }

  /** Show at once what there is of a text that grows. */
  skip() {
    this.#shown = this.tree.text.length;
  }

  /** Show what is left of a text that has ended, and then let it be edited. */
  async settle() {
    const end = performance.now() + MOST_SETTLING;
    while (this.#frame !== 0 && !document.hidden && performance.now() < end) {
      await new Promise(requestAnimationFrame);
    }
    this.render();
    this.moveCaret(this.tree.text.length);
  }

  moveCaret(place) {
    this.textarea.setSelectionRange(place, place);
  }

  /** Return the symbol under a point of the window, or null. */
  symbolAt(x, y) {
    const element = document.elementsFromPoint(x, y).find((each) => each.classList.contains("symbol"));
    return this.#symbols().find((symbol) => symbol.element === element) ?? null;
  }

  /** Return the symbol that begins at a place of the text, or else the last one before it, or null. */
  symbolFrom(place) {
    return this.#symbols().findLast((symbol) => symbol.begin <= place) ?? null;
  }

  #symbols() {
    let begin = 0;
    return this.#views.flatMap((view) => {
      const start = begin;
      begin += view.length;
      return [...view.symbols, ...view.ends].map((symbol) => ({ ...symbol, begin: start + symbol.begin }));
    });
  }

  #advance(now) {
    const target = this.tree.text.length;
    const share = this.#motion.matches ? 1 : 1 - Math.exp(-Math.max(0, now - this.#drawnAt) / APPEARING);
    this.#drawnAt = now;
    this.#shown = Math.min(this.#shown, target);
    this.#shown += Math.ceil((target - this.#shown) * share);
    this.#draw();
    this.#frame = this.#isGrowing && this.#shown < target ? requestAnimationFrame((next) => this.#advance(next)) : 0;
  }

  #draw() {
    const scroller = document.scrollingElement;
    const isFollowing =
      this.#isGrowing && scroller.scrollHeight - scroller.scrollTop - innerHeight < FOLLOW_DISTANCE;
    const path = this.tree.current.path;
    let left = this.#shown;
    for (const [index, piece] of path.entries()) {
      if (this.#views[index]?.piece !== piece || !this.#views[index].canGrow(left)) {
        this.#views.splice(index).forEach((view) => view.element.remove());
        this.#views.push(new PieceView(piece, this.#vocabulary));
        this.backdrop.lastChild.before(this.#views[index].element);
      }
      this.#views[index].show(Math.min(left, piece.text.length), this.#isGrowing);
      left -= Math.min(left, piece.text.length);
    }
    this.#views.splice(path.length).forEach((view) => view.element.remove());
    // The field has a layout of its own, which would cost as much again in each frame; nobody writes in it meanwhile.
    if (!this.#isGrowing && this.textarea.value !== this.tree.text) {
      this.textarea.value = this.tree.text;
    }
    this.backdrop.parentElement.classList.toggle("empty", this.#shown === 0 && !this.tree.current.isEnded);
    if (isFollowing) {
      scroller.scrollTop = scroller.scrollHeight;
    }
  }
}

/** What is seen of a piece. */
class PieceView {
  element = document.createElement("span");
  symbols = [];
  /** The end of a record, where it is shown and its token is known. */
  ends = [];
  /** The mark at the end of a record, or null. */
  #mark = null;
  /** Characters that are shown. */
  length = 0;
  #text = "";
  #hasTokens;

  constructor(piece, vocabulary) {
    Object.assign(this, { piece, vocabulary });
    this.element.className = piece.isByModel ? "written" : "typed";
    this.#hasTokens = piece.tokens.length > 0;
  }

  /** Return whether what is seen is the beginning of what is to be seen. */
  canGrow(length) {
    const { text, tokens } = this.piece;
    const hasRightTokens = this.#hasTokens === tokens.length > 0 || this.length === 0;
    const hasRightEnd = this.#mark === null || this.piece.isEnded;
    return hasRightTokens && hasRightEnd && this.length <= length && text.startsWith(this.#text);
  }

  show(length, isNew) {
    this.#hasTokens = this.piece.tokens.length > 0;
    if (this.#hasTokens) {
      this.#showTokens(length, isNew);
    } else if (this.length < length) {
      this.#showUnread(this.piece.text.slice(this.length, length));
      this.length = length;
    }
    this.#text = this.piece.text.slice(0, this.length);
    if (this.piece.isEnded && this.#mark === null && this.length === this.piece.text.length) {
      this.#showEnd(isNew);
    }
  }

  #showUnread(text) {
    for (const part of this.vocabulary.splitUnknown(text)) {
      const element = document.createElement("span");
      element.className = "unknown";
      element.textContent = part.text;
      this.element.append(part.isKnown ? part.text : element);
    }
  }

  #showEnd(isNew) {
    const { piece, length } = this;
    const token = piece.ending;
    this.#mark = document.createElement("span");
    this.#mark.className = `end${isNew ? " new" : ""}`; // style.css has the word, which is no part of the text
    if (token) {
      this.#mark.classList.add("symbol", `level${levelOf(surpriseOf(token))}`);
      this.ends = [{ piece, token, element: this.#mark, begin: length }];
    }
    this.element.append(this.#mark);
  }

  #showTokens(length, isNew) {
    const { tokens } = this.piece;
    while (this.symbols.length < tokens.length) {
      const token = tokens[this.symbols.length];
      const mayEnd = token.text === "" && this.symbols.length === tokens.length - 1; // a record, with a mark of its own
      if (mayEnd || this.length + token.text.length > length) {
        return;
      }
      const element = document.createElement("span");
      element.className = `symbol level${levelOf(surpriseOf(token))}${isNew ? " new" : ""}`;
      element.textContent = token.text;
      element.classList.toggle("unknown", token.logprob === null && [...token.text].some((each) => !this.vocabulary.knows(each)));
      this.element.append(element);
      this.symbols.push({ piece: this.piece, token, element, begin: this.length });
      this.length += token.text.length;
    }
  }
}
