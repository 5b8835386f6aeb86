/** What stands around the text: the buttons, the line of news, the colours, the windows. */

import { listKeys } from "./keys.js";
import { makeLegend } from "./surprise.js";

const THEMES = ["auto", "light", "dark"];
/** The buttons by the action that they are for. */
const ACTIONS = ["write", "another", "undo", "redo", "link", "reset"];

/** Milliseconds after which news that need no answer go away. */
const PASSING = 6000;

export class Furniture {
  #passing = 0;
  #theme = "auto";
  #systemDark = matchMedia("(prefers-color-scheme: dark)");

  /**
   * @param {(id: string) => HTMLElement} find
   * @param {(action: string) => void} onAction
   */
  constructor(find, onAction) {
    this.find = find;
    for (const action of ACTIONS) {
      find(action).addEventListener("click", () => onAction(action));
    }
    find("models").addEventListener("change", () => onAction("model"));
    find("theme").addEventListener("click", () => {
      this.theme = THEMES[(THEMES.indexOf(this.#theme) + 1) % THEMES.length];
    });
    find("no-key").addEventListener("click", () => find("key-dialog").close(""));
    find("help").addEventListener("click", () => this.showKeys());
    find("colours").addEventListener("change", () => this.#showColours());
    find("colours").checked = true;
    this.#systemDark.addEventListener("change", () => (this.theme = this.#theme));
    this.theme = "auto";
    find("legend").append(makeLegend());
    find("help-legend").append(makeLegend());
    find("explain").addEventListener("click", () => {
      const isExplained = find("settings").classList.toggle("explained");
      find("explain").setAttribute("aria-pressed", isExplained);
    });
    listKeys(find("key-list"));
    this.#openSides();
    this.#showColours();
  }

  get theme() {
    return this.#theme;
  }

  set theme(theme) {
    this.#theme = THEMES.includes(theme) ? theme : "auto";
    const isDark = this.#theme === "auto" ? this.#systemDark.matches : this.#theme === "dark";
    document.documentElement.dataset.theme = isDark ? "dark" : "light";
    const button = this.find("theme");
    button.dataset.choice = this.#theme;
    button.setAttribute("aria-label", `Colours of the page: ${this.#theme}`);
  }

  /** What can be kept on this device. */
  get state() {
    return { theme: this.#theme, hasColours: this.find("colours").checked };
  }

  set state({ theme, hasColours }) {
    this.theme = theme;
    this.find("colours").checked = hasColours;
    this.#showColours();
  }

  /**
   * Show one line of news.
   *
   * @param {string} message
   * @param {"" | "error" | "waiting" | "passing"} kind what is passing goes away by itself
   * @param {{label: string, onChoose: () => void} | null} choice a button behind the message
   */
  say(message, kind = "", choice = null) {
    clearTimeout(this.#passing);
    const line = this.find("status");
    line.textContent = message;
    line.dataset.kind = kind;
    if (choice !== null) {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: choice.label });
      button.addEventListener("click", choice.onChoose);
      line.append(" ", button);
    }
    if (kind === "passing") {
      this.#passing = setTimeout(() => this.say(""), PASSING);
    }
  }

  /** Show a line that goes away by itself, where there is no other one. */
  hint(message) {
    if (this.find("status").textContent === "") {
      this.say(message, "passing");
    }
  }

  /** Tell those who do not see the text that some of it was written. */
  tellLength(count) {
    this.find("spoken").textContent = `${count} characters were written.`;
  }

  showProgress({ loaded, total }) {
    const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
    const amount = total ? `${megabytes(loaded)} of ${megabytes(total)}` : megabytes(loaded);
    this.say(`Loading the model: ${amount} MB…`, "waiting");
  }

  /** Show which model writes, and what it offers. */
  showModel({ name, card, abilities, documentation }, names) {
    const line = this.find("model");
    const strong = document.createElement("b");
    strong.textContent = names.length > 1 ? "" : name;
    const summary = document.createElement("span");
    summary.textContent = card?.summary ? `${names.length > 1 ? "" : ", "}${card.summary}` : "";
    line.replaceChildren(strong, summary);
    const models = this.find("models");
    models.hidden = names.length < 2;
    models.replaceChildren(...names.map((each) => new Option(each, each, false, each === name)));
    this.find("api").hidden = !documentation;
    document.querySelectorAll(".match").forEach((element) => (element.hidden = !abilities.match));
  }

  get chosenModel() {
    return this.find("models").value;
  }

  set chosenModel(name) {
    this.find("models").value = name;
  }

  showActions({ isReady, isWriting, canUndo, canRedo, canRepeat }) {
    const { find } = this;
    document.body.classList.toggle("writing", isWriting);
    find("write").textContent = isWriting ? "Stop" : "Write";
    find("write").disabled = !isReady;
    find("another").disabled = !isReady || isWriting || !canRepeat;
    find("undo").disabled = isWriting || !canUndo;
    find("redo").disabled = isWriting || !canRedo;
    find("link").disabled = !isReady || isWriting;
    find("models").disabled = isWriting;
  }

  showKeys() {
    this.find("keys").showModal();
  }

  /** Ask for the key of the API, again where the last one was wrong; null when nobody gives one. */
  askKey(isWrong) {
    const dialog = this.find("key-dialog");
    const field = this.find("key");
    this.find("key-message").textContent = isWrong
      ? "The server does not accept this key. Give another one."
      : "Whoever runs the server has it.";
    field.value = "";
    dialog.returnValue = "";
    dialog.showModal();
    field.focus();
    return new Promise((resolve) => {
      const end = () => {
        const key = field.value.trim();
        field.value = "";
        resolve(dialog.returnValue === "use" && key ? key : null);
      };
      dialog.addEventListener("close", end, { once: true });
    });
  }

  #showColours() {
    const hasColours = this.find("colours").checked;
    document.body.classList.toggle("coloured", hasColours);
    this.find("legend").hidden = !hasColours;
  }

  /** On narrow windows the branches and the settings open above the text. */
  #openSides() {
    const openers = [...document.querySelectorAll("[data-opens]")];
    const show = (opener, isOpen) => {
      this.find(opener.dataset.opens).classList.toggle("open", isOpen);
      opener.setAttribute("aria-expanded", isOpen);
    };
    for (const opener of openers) {
      const side = this.find(opener.dataset.opens);
      opener.addEventListener("click", () => {
        const isOpen = !side.classList.contains("open");
        openers.forEach((each) => show(each, each === opener && isOpen));
        if (isOpen) {
          side.querySelector(".close").focus();
        }
      });
      const close = () => {
        show(opener, false);
        opener.focus();
      };
      side.querySelector(".close").addEventListener("click", close);
      side.addEventListener("keydown", (event) => event.key === "Escape" && close());
    }
  }
}
