/** The settings of a request to a generator, which docs/browser.md describes. */

import { EngineError } from "./errors.js";
import { MATCH_LINK } from "./match.js";
import { chooseParameters } from "./parameters.js";

const MAX_SEED = 2n ** 64n;
/** The most probable symbols of a position, at most. */
export const MAX_TOP = 10;

/**
 * Return the settings of a request, checked; what it leaves out is that of its session.
 *
 * @throws {EngineError} parameter, or session for one of another file
 */
export function readSettings(
  { session = null, seed, stream, length = 200, parameters, stop, match = "", unknown = "error", logprobs = 0 },
  { chain, fingerprint },
) {
  if (session && session.file !== fingerprint) {
    throw new EngineError("session", "session: it belongs to another model; begin a new text");
  }
  const before = session?.settings ?? { seed: crypto.getRandomValues(new Uint32Array(1))[0], stream: 0, stop: [] };
  const stops = stop ?? before.stop;
  if (!Array.isArray(stops) || stops.some((text) => typeof text !== "string" || !text)) {
    throw new EngineError("parameter", "stop: expected texts of at least one character");
  }
  if (match && !chain.some(({ name }) => name === MATCH_LINK)) {
    throw new EngineError("parameter", `match = ${JSON.stringify(match)}: the file's chain has no link match`);
  }
  return {
    seed: readWhole("seed", seed ?? before.seed, 0, MAX_SEED - 1n),
    stream: readWhole("stream", stream ?? before.stream, 0, MAX_SEED - 1n),
    length: readWhole("length", length, 1, Number.MAX_SAFE_INTEGER),
    parameters: parameters ? chooseParameters(chain, parameters) : (before.parameters ?? {}),
    stop: stops,
    match,
    unknown,
    top: readWhole("logprobs", logprobs, 0, MAX_TOP),
  };
}

function readWhole(name, number, low, high) {
  const isWhole = typeof number === "bigint" || Number.isSafeInteger(number);
  if (isWhole && number >= low && number <= high) return number;
  throw new EngineError("parameter", `${name} = ${number}: expected a whole number from ${low} to ${high}`);
}
