/** The keys that are pressed in the text: which of them are for the page, for the window above it, or for the field. */

import { actionOf } from "./keys.js";

const MODIFIERS = new Set(["Alt", "AltGraph", "Control", "Meta", "Shift"]);

export class TextKeys {
  /** Whether Tab leaves the text, as it does after Esc: else nobody could leave it by the keyboard. */
  #isTabFree = false;

  /**
   * @param {HTMLTextAreaElement} textarea
   * @param {Alternatives} alternatives the window, to which the arrows belong while it is open
   * @param {{onAction: (action: string) => void, onEscape: () => void}} handlers
   */
  constructor(textarea, alternatives, { onAction, onEscape }) {
    Object.assign(this, { alternatives, onAction, onEscape });
    textarea.addEventListener("keydown", (event) => this.#press(event));
    textarea.addEventListener("beforeinput", (event) => this.#undoByMenu(event));
    textarea.addEventListener("pointerdown", () => (this.#isTabFree = false));
  }

  /** Let the next Tab leave the text. */
  freeTab() {
    this.#isTabFree = true;
    this.onEscape();
  }

  #press(event) {
    if (MODIFIERS.has(event.key)) {
      return;
    }
    const isFree = this.#isTabFree;
    this.#isTabFree = false;
    if (this.alternatives.isOpen) {
      if (this.alternatives.takeKey(event)) {
        return;
      }
      this.alternatives.close();
    }
    const action = actionOf(event);
    if (action === null || (action === "write" && isFree)) {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
    this.onAction(action);
    if (action === "stop") {
      this.freeTab();
    }
  }

  #undoByMenu(event) {
    if (event.inputType === "historyUndo" || event.inputType === "historyRedo") {
      event.preventDefault();
      this.onAction(event.inputType === "historyUndo" ? "undo" : "redo");
    }
  }
}
