/** The parameters of the links of a chain, as a file describes them. */

import { EngineError } from "./errors.js";

/** Return the parameters that users set, in the order of the chain. */
export function listParameters(chain) {
  return chain.flatMap((link) =>
    Object.entries(link.params)
      .filter(([, param]) => param.is_option && !param.per_symbol)
      .map(([name, param]) => ({
        link: link.name,
        param: name,
        default: param.default,
        neutral: param.neutral,
        low: param.low,
        high: param.high,
        dtype: param.dtype,
        switch: link.switch === name ? null : link.switch,
        help: param.help,
      })),
  );
}

/**
 * Return numbers by the names of the graph's inputs, `LINK.PARAM`.
 *
 * @param {object[]} chain the links of the metadata
 * @param {Object<string, number>} settings by `PARAM`, `LINK_PARAM` or `LINK.PARAM`
 * @throws {EngineError} parameter
 */
export function chooseParameters(chain, settings) {
  const parameters = listParameters(chain);
  const numbers = {};
  for (const [name, number] of Object.entries(settings)) {
    const fits = parameters.filter(({ link, param }) => [param, `${link}_${param}`, `${link}.${param}`].includes(name));
    if (!fits.length) {
      const names = parameters.map(({ param }) => param).join(", ");
      throw new EngineError("parameter", `no parameter ${name}; the file's chain has ${names || "none"}`);
    }
    if (fits.length > 1) {
      const names = fits.map(({ link, param }) => `${link}.${param}`).join(" or ");
      throw new EngineError("parameter", `${name} belongs to more than one link; say ${names}`);
    }
    const [{ link, param, low, high, dtype }] = fits;
    const isNumber = dtype === "int64" ? Number.isSafeInteger(number) : Number.isFinite(number);
    if (!isNumber || (low !== null && number < low) || (high !== null && number > high)) {
      const range = `${low === null ? "" : ` from ${low}`}${high === null ? "" : ` up to ${high}`}`;
      const kind = dtype === "int64" ? "a whole number" : "a number";
      throw new EngineError("parameter", `${name} = ${number}: expected ${kind}${range}`);
    }
    numbers[`${link}.${param}`] = number;
  }
  return numbers;
}
