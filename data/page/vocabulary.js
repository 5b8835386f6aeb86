/** The characters that a model knows, and what becomes of those that it does not know. */

/** What a part of a character looks like among the symbols: a model that has such parts knows every character. */
const PART = /\\x[0-9a-f]{2}/;

/** Characters that a message names, at most. */
const MOST_NAMED = 5;

export class Vocabulary {
  /** The characters of the symbols; null where the model knows every character. */
  #characters;

  /** @param {string[]} symbols of the model, as `describe` of an engine has them; without them it knows every one */
  constructor(symbols = ["\\x00"]) {
    this.#characters = symbols.some((symbol) => PART.test(symbol)) ? null : new Set(symbols.join(""));
  }

  knows(character) {
    return this.#characters === null || this.#characters.has(character);
  }

  /** Return the characters of a text that the model does not know, each once. */
  findUnknown(text) {
    return [...new Set(text)].filter((character) => !this.knows(character));
  }

  /** Return a text without the characters that the model does not know. */
  skipUnknown(text) {
    return [...text].filter((character) => this.knows(character)).join("");
  }

  /** Return a text as parts `{text, isKnown}`. */
  splitUnknown(text) {
    const parts = [];
    for (const character of text) {
      const isKnown = this.knows(character);
      if (parts.at(-1)?.isKnown === isKnown) {
        parts.at(-1).text += character;
      } else {
        parts.push({ text: character, isKnown });
      }
    }
    return parts;
  }

  /** Return the tokens of a text that was read without its unknown characters, with a token for each of those. */
  insertUnknown(text, tokens) {
    const all = [];
    let place = 0;
    for (const token of [...tokens, { text: "" }]) {
      while (place < text.length && !this.knows(String.fromCodePoint(text.codePointAt(place)))) {
        const character = String.fromCodePoint(text.codePointAt(place));
        all.push({ text: character, logprob: null, top: [] });
        place += character.length;
      }
      all.push(token);
      place += token.text.length;
    }
    return all.slice(0, -1);
  }
}

/** Return the sentence about characters that a model does not know. */
export function describeUnknown(characters) {
  const names = characters.slice(0, MOST_NAMED).map((character) => `“${character}”`).join(", ");
  const more = characters.length > MOST_NAMED ? ` and ${characters.length - MOST_NAMED} more` : "";
  return `The model does not know ${names}${more}, as marked in the text.`;
}
