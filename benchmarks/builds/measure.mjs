/** What the programs of benchmarks/builds.py do in Node and in the browser. */

import { findDifferences } from "./forced.mjs";

const WARM_CHARACTERS = 1000;
const TIMED_CHARACTERS = 4000;

/**
 * Compare the draws along texts, and the texts that are written with their seeds.
 *
 * @param {object} generator a `Generator` of data/page/generator.js
 * @param {{texts: object[], length: number}} job texts with tokens, seed, stream and parameters; `length` of new texts
 */
export async function compare(generator, { texts, length }) {
  const results = [];
  for (const text of texts) {
    const different = await findDifferences(generator, text);
    const { seed, stream, parameters } = text;
    const written = await generator.write({ seed, stream, parameters, length });
    results.push({ different: different.length, written: written.text });
  }
  return results;
}

/** Return characters a second once warm, and the milliseconds until a first character. */
export async function measureRate(engine) {
  await engine.write({ seed: 1, length: WARM_CHARACTERS });
  const startedAt = performance.now();
  let firstAt = null;
  await engine.write({ seed: 2, length: TIMED_CHARACTERS, onText: () => (firstAt ??= performance.now()) });
  const seconds = (performance.now() - startedAt) / 1000;
  return { rate: TIMED_CHARACTERS / seconds, first: firstAt - startedAt };
}
