/** Symbols as a reader sees them. */

const NAMES = new Map([
  ["\n", "↵"],
  [" ", "␣"],
  ["\t", "⇥"],
  ["\r", "␍"],
]);
const WORDS = new Map([
  ["\n", "line end"],
  [" ", "space"],
  ["\t", "tab"],
  ["\r", "carriage return"],
]);

/** What stands for the symbol that ends a record, which has no text. */
const END = "end";

/** Return a symbol with signs for what is invisible; with `hasEnd` the one without text ends a record. */
export function showSymbol(text, hasEnd = false) {
  if (text === "") {
    return hasEnd ? END : "∅";
  }
  return [...text].map((character) => NAMES.get(character) ?? character).join("");
}

/** Return a symbol as it is read aloud. */
export function sayWord(text) {
  return WORDS.get(text) ?? (text === "" ? "end of the record" : text);
}

/** Return whether a symbol is text by itself, not a byte of a character. */
export function isText(text) {
  return text !== "" && !/^(\\x[0-9a-f]{2})+$/.test(text);
}

/** Return a probability in percent, short. */
export function showPercent(logprob) {
  const percent = 100 * Math.exp(logprob);
  if (percent >= 9.95) {
    return `${percent.toFixed(0)} %`;
  }
  return percent >= 0.095 ? `${percent.toFixed(1)} %` : "< 0.1 %";
}
