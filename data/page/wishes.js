/** The fields beside the sliders: how much is written, with which seed, and where it ends. */

const ESCAPES = { "\\n": "\n", "\\t": "\t", "\\r": "\r", "\\\\": "\\" };
/** Seeds are drawn below this; those that are typed are whole numbers that JavaScript keeps exactly. */
const DRAWN_SEEDS = 2 ** 32;

export class Wishes {
  /** How many texts have begun with the seed: each has a number of its own behind it. */
  #used = 0;

  #usualLength;

  /** @param {(id: string) => HTMLElement} find */
  constructor(find, onChange) {
    this.length = find("length");
    this.#usualLength = this.length.valueAsNumber;
    this.seedField = find("seed");
    this.stop = find("stop");
    this.match = find("match");
    find("new-seed").addEventListener("click", () => {
      this.drawSeed();
      onChange();
    });
    this.seedField.addEventListener("change", () => {
      this.#used = 0;
      onChange();
    });
    [this.length, this.stop, this.match].forEach((field) => field.addEventListener("change", onChange));
    this.drawSeed();
  }

  drawSeed() {
    this.seed = Math.floor(Math.random() * DRAWN_SEEDS);
  }

  /** Show a length, or the usual one for null, unless somebody has typed another one. */
  suggestLength(length) {
    const isUntouched = this.length.value === this.length.defaultValue;
    this.length.defaultValue = Math.min(Math.max(1, length ?? this.#usualLength), Number(this.length.max));
    if (isUntouched) {
      this.length.value = this.length.defaultValue;
    }
  }

  get seed() {
    return Number(this.seedField.value);
  }

  set seed(seed) {
    this.seedField.value = seed;
    this.#used = 0;
  }

  /** Return the seed of the next text: the one that is shown, and for each further text the next number. */
  takeSeed() {
    return this.seed + this.#used++;
  }

  /** Return whether a text had its seed from this field. */
  gave(seed) {
    return seed >= this.seed && seed < this.seed + Math.max(1, this.#used);
  }

  /** Show the seed of a text that was written from a link; further texts get other ones. */
  follow(seed) {
    if (!this.gave(seed - 1)) {
      this.seed = seed;
    }
    this.#used = seed - this.seed + 1;
  }

  /** Return what is wrong with a field, as a sentence, or null. */
  get problem() {
    if (!/^\d+$/.test(this.seedField.value.trim()) || !Number.isSafeInteger(this.seed + this.#used)) {
      return `Seed: ${this.seedField.value || "nothing"}; expected a whole number from 0 to ${Number.MAX_SAFE_INTEGER}.`;
    }
    if (!this.length.checkValidity() || this.length.value === "") {
      return `Length: expected a whole number of characters from 1 to ${this.length.max}.`;
    }
    return null;
  }

  /** What an engine is asked for, but for the seed. */
  get request() {
    return { length: this.length.valueAsNumber, stop: readStops(this.stop.value), match: this.match.value };
  }

  get state() {
    return { length: this.length.value, seed: this.seedField.value, stop: this.stop.value, match: this.match.value };
  }

  set state({ length, seed, stop, match }) {
    Object.assign(this.length, { value: length });
    this.seed = seed;
    Object.assign(this.stop, { value: stop });
    Object.assign(this.match, { value: match });
  }
}

/** Return the stop strings of a field: one a line, with escapes for what has no sign. */
export function readStops(text) {
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.map((line) => line.replace(/\\[ntr\\]/g, (code) => ESCAPES[code]));
}
