/** How surprising a symbol was, in bits, as one of a few levels with a colour each. */

/** The least surprise of each level, in bits; below the first one a symbol has no colour. */
export const LEVELS = [2, 3.5, 5, 7, 9];

/** Return the surprise of a token in bits; null where it is not known. */
export function surpriseOf(token) {
  return typeof token?.logprob === "number" ? Math.abs(token.logprob / Math.LN2) : null;
}

/** Return the level of a surprise in bits: 0, which has no colour, to the number of levels. */
export function levelOf(bits) {
  return bits === null ? 0 : LEVELS.filter((least) => bits >= least).length;
}

/** Return the element that explains the colours. */
export function makeLegend() {
  const legend = document.createElement("div");
  legend.className = "legend";
  legend.setAttribute("role", "img");
  legend.setAttribute("aria-label", `Colours: from expected, below ${LEVELS[0]} bits, to surprising, ${LEVELS.at(-1)} bits and more`);
  const steps = document.createElement("span");
  steps.className = "steps";
  for (const [level, least] of [0, ...LEVELS].entries()) {
    const step = document.createElement("span");
    step.className = `level${level}`;
    step.title = `${least} bits and more: one in ${Math.round(2 ** least)}, or less probable`;
    step.textContent = least;
    steps.append(step);
  }
  legend.append(makeWords("expected"), steps, makeWords("surprising"));
  return legend;
}

function makeWords(text) {
  const words = document.createElement("span");
  words.className = "words";
  words.textContent = text;
  return words;
}
