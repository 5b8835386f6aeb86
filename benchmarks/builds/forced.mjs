/** Draws along a given text: how often a build of onnxruntime would have drawn another symbol. For Node and browsers. */

/** Positions of a call. */
const POSITIONS = 250;

/**
 * Return the positions at which another token is drawn than the given one, each after all given tokens before it.
 *
 * @param {object} generator a `Generator` of data/page/generator.js
 * @param {{tokens: number[], seed: number, stream: number, parameters: object}} text
 * @returns {Promise<number[]>}
 */
export async function findDifferences(generator, { tokens, seed, stream, parameters }) {
  const settings = generator.readSettings({ seed, stream, parameters });
  const different = [];
  let row = generator.firstRow();
  for (let position = 0; position < tokens.length; ) {
    const expected = tokens.slice(position, position + POSITIONS);
    const drawn = await generator.call(row, settings, { count: expected.length });
    const agreeing = expected.findIndex((token, index) => token !== drawn.tokens[index]);
    if (agreeing < 0) {
      row = drawn.row;
      position += expected.length;
      continue;
    }
    different.push(position + agreeing);
    row = await readTokens(generator, row, settings, expected.slice(0, agreeing + 1));
    position += agreeing + 1;
  }
  return different;
}

/** Return the row after tokens that count as drawn. */
async function readTokens(generator, row, settings, tokens) {
  const drawn = tokens.length > 1 ? await generator.call(row, settings, { count: tokens.length - 1 }) : { row };
  const forced = await generator.call(drawn.row, settings, { forced: tokens.slice(-1) });
  return { ...forced.row, drawn: drawn.row.drawn + 1 };
}
