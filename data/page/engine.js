/** Opens the engine of the page: what writes the texts. docs/browser.md describes the interface of all engines. */

import { EngineError } from "./errors.js";

export { EngineError };

/**
 * Return the engine that `engine.json` names, which lies beside this module.
 *
 * @param {{onProgress?: (progress: {file: string, loaded: number, total: number}) => void}} [options]
 *     `onProgress` is called with the bytes of the files that are loaded; `total` is 0 where it is unknown.
 * @throws {EngineError}
 */
export async function openEngine({ onProgress = () => {} } = {}) {
  const settings = await readSettings(new URL("engine.json", import.meta.url));
  if (settings.engine === "server") {
    const { ServerEngine } = await import("./server_engine.js");
    return ServerEngine.open(settings, onProgress);
  }
  const { WasmEngine } = await import("./wasm_engine.js");
  return WasmEngine.open(settings, onProgress);
}

async function readSettings(url) {
  let response;
  try {
    response = await fetch(url);
  } catch {
    throw new EngineError("network", "the server does not answer; try again once it runs");
  }
  if (!response.ok) {
    throw new EngineError("network", `engine.json: the server answered ${response.status}; export the folder again`);
  }
  try {
    return await response.json();
  } catch {
    throw new EngineError("damaged", "engine.json is damaged; export the folder again: gen export RUN --web DIR");
  }
}
