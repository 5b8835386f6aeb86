/** A small window with the symbols that were most probable in the place of another one. */

import { surpriseOf } from "./surprise.js";
import { isText, sayWord, showPercent, showSymbol } from "./symbols.js";

export class Alternatives {
  #symbol = null;
  /** Whether the symbol without text ends a record. */
  hasEnd = false;

  /**
   * @param {HTMLElement} element the window
   * @param {{onChoose: (symbol: object, text: string) => void, onClose: () => void, onEscape: () => void}} handlers
   */
  constructor(element, { onChoose, onClose, onEscape }) {
    Object.assign(this, { element, onChoose, onClose, onEscape });
    element.addEventListener("keydown", (event) => this.takeKey(event));
    document.addEventListener("pointerdown", (event) => {
      if (!this.element.hidden && !element.contains(event.target)) {
        this.close();
      }
    });
  }

  get isOpen() {
    return !this.element.hidden;
  }

  /** Show the alternatives to a symbol of the surface; `takesFocus` is for the keyboard. */
  open(symbol, takesFocus = false) {
    this.close();
    this.#symbol = symbol;
    symbol.element.classList.add("chosen");
    this.element.replaceChildren(this.#makeHead(), this.#makeList());
    this.element.hidden = false;
    this.#place();
    if (takesFocus) {
      (this.element.querySelector("[aria-current]") ?? this.element.querySelector("button"))?.focus();
    }
  }

  close() {
    this.#symbol?.element.classList.remove("chosen");
    this.#symbol = null;
    this.element.hidden = true;
  }

  #makeHead() {
    const { token } = this.#symbol;
    const head = document.createElement("p");
    const bits = surpriseOf(token);
    const name = document.createElement("b");
    name.textContent = showSymbol(token.text, this.hasEnd);
    head.append(name, bits === null ? " begins the text" : ` ${showPercent(token.logprob)}, ${bits.toFixed(1)} bits`);
    return head;
  }

  #makeList() {
    const { token } = this.#symbol;
    const isListed = token.top.some(([text]) => text === token.text);
    const rows = isListed || token.logprob === null ? token.top : [...token.top, [token.text, token.logprob]];
    const list = document.createElement("ul");
    list.append(...rows.map(([text, logprob]) => this.#makeRow(text, logprob, text === token.text)));
    if (rows.length === 0) {
      list.textContent = "Nothing stands before it, so the model had nothing to go by.";
    }
    return list;
  }

  #makeRow(text, logprob, isOwn) {
    const button = document.createElement("button");
    button.type = "button";
    const isEnd = this.hasEnd && text === "";
    button.disabled = !isText(text) && !isEnd;
    button.classList.toggle("ends", isEnd);
    const [letter, bar, share] = ["letter", "bar", "share"].map((name) => {
      const part = document.createElement("span");
      part.className = name;
      return part;
    });
    letter.textContent = showSymbol(text, this.hasEnd);
    const filled = document.createElement("span");
    filled.style.width = `${100 * Math.exp(logprob)}%`;
    bar.append(filled);
    share.textContent = showPercent(logprob);
    button.append(letter, bar, share);
    button.setAttribute("aria-label", `${sayWord(text)}, ${showPercent(logprob)}${isOwn ? ", in the text" : ": branch here"}`);
    if (isOwn) {
      button.setAttribute("aria-current", "true");
    }
    const symbol = this.#symbol;
    button.addEventListener("click", () => {
      this.close();
      this.onClose();
      if (!isOwn) {
        this.onChoose(symbol, text);
      }
    });
    const row = document.createElement("li");
    row.append(button);
    return row;
  }

  /** Put the window below its symbol, or above it where there is no room, within the paper. */
  #place() {
    const paper = this.element.parentElement.getBoundingClientRect();
    const symbol = this.#symbol.element.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.element;
    const left = Math.max(8, Math.min(symbol.left - 24, innerWidth - width - 8));
    const isBelow = symbol.bottom + height + 12 < innerHeight || symbol.top < height + 12;
    const top = isBelow ? symbol.bottom + 6 : symbol.top - height - 6;
    this.element.style.left = `${left - paper.left}px`;
    this.element.style.top = `${top - paper.top}px`;
  }

  /**
   * Do what a key is for while the window is open, and return whether it is for the window. The first arrow brings the
   * keys here from the text: it goes on from the symbol that stands there.
   */
  takeKey(event) {
    const isPlain = !event.ctrlKey && !event.altKey && !event.metaKey && !event.shiftKey;
    const buttons = [...this.element.querySelectorAll("button:not(:disabled)")];
    const hasFocus = this.element.contains(document.activeElement);
    const index = buttons.findIndex((button) => button.matches(hasFocus ? ":focus" : "[aria-current]"));
    const steps = { ArrowDown: index + 1, ArrowUp: Math.max(index, 0) - 1 };
    if (hasFocus) {
      Object.assign(steps, { Home: 0, End: buttons.length - 1 });
    }
    const isStep = isPlain && event.key in steps;
    const isEnd = event.key === "Escape" || (hasFocus && event.key === "Tab");
    if (!isStep && !isEnd) {
      return false;
    }
    event.preventDefault();
    event.stopPropagation();
    if (isStep) {
      buttons.at(steps[event.key] % buttons.length)?.focus();
    } else {
      this.close();
      this.onClose();
      if (event.key === "Escape") {
        this.onEscape();
      }
    }
    return true;
  }
}
