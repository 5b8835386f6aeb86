/** The empty page: what the model is, and beginnings to click. */

/** Beginnings of texts in some languages, and of records; those are offered whose characters the model knows. */
const TEXT_BEGINNINGS = ["Once upon a time", "What is ", "The ", "Es war einmal ", "Il était une fois ", "Жили-были ", "从前", "a", "1"];
const RECORD_BEGINNINGS = ["San ", "Mar", "El", "mar", "st", "a", "А", "1", "C"];
/** How many are offered, besides the one without characters. */
const BEGINNINGS = 2;

export class Welcome {
  /**
   * @param {HTMLElement} element
   * @param {(text: string) => void} onBegin is called with the beginning that was chosen
   */
  constructor(element, onBegin) {
    Object.assign(this, { element, onBegin });
  }

  /** Show what a model is, as far as its file says so, and how a text of it may begin. */
  show({ records, card }, vocabulary) {
    const beginnings = (records ? RECORD_BEGINNINGS : TEXT_BEGINNINGS).filter((text) => vocabulary.findUnknown(text).length === 0);
    const buttons = beginnings.slice(0, BEGINNINGS).map((text) => this.#makeButton(`${text.trimEnd()} …`, text));
    const about = document.createElement("p");
    about.className = "about";
    about.textContent = describeModel(card);
    const choices = document.createElement("p");
    choices.className = "beginnings";
    choices.append(...buttons, this.#makeButton("Let the model begin", ""));
    this.element.replaceChildren(about, choices);
  }

  #makeButton(label, text) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: label });
    button.addEventListener("click", () => this.onBegin(text));
    return button;
  }
}

/** Return sentences about a model; what its file does not say is left out. */
export function describeModel(card) {
  const { summary, corpus, parameters } = card ?? {};
  const number = (count, unit) => `${new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 2 }).format(count)} ${unit}`;
  const size = parameters ? `has ${number(parameters, "parameters")}` : "";
  const characters = corpus?.characters ? ` (${number(corpus.characters, "characters")})` : "";
  const origin = corpus?.name ? `learned from ${corpus.name}${characters}` : "";
  const facts = [size, origin].filter((fact) => fact !== "").join(" and ");
  return [summary ? `It writes ${summary}.` : "", facts ? `This small model ${facts}.` : ""].join(" ").trim();
}
