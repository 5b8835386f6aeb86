/** The engine that computes in the browser, in a worker. docs/browser.md describes the interface of all engines. */

import { EngineError } from "./errors.js";

export class WasmEngine {
  /**
   * Load the files of an exported folder.
   *
   * @param {{generator: string, ort: string, wasm: string}} settings the names of its files, of `engine.json`
   * @param {(progress: {file: string, loaded: number, total: number}) => void} onProgress
   * @throws {EngineError}
   */
  static async open(settings, onProgress) {
    const engine = new WasmEngine();
    engine.model = await engine.#ask("open", { settings }, { onProgress });
    return engine;
  }

  constructor() {
    this.requests = new Map();
    this.lastId = 0;
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.#receive(data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      const reason = event.message ? `: ${event.message}` : ": worker.js cannot be loaded";
      this.#fail(new EngineError(event.message ? "runtime" : "network", `the worker has ended${reason}`));
    };
  }

  async describe() {
    return this.model;
  }

  async write({ onText, onPrompt, signal, ...request }) {
    return this.#ask("write", { request }, { onText, onPrompt, signal });
  }

  /** End all texts, and release the memory of the model. */
  close() {
    this.worker.terminate();
    this.#fail(new EngineError("runtime", "the model was closed"));
  }

  #ask(command, message, { onProgress, onText, onPrompt, signal } = {}) {
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      this.requests.set(id, { resolve, reject, onProgress, onText, onPrompt });
      this.worker.postMessage({ id, command, ...message });
      const abort = () => this.worker.postMessage({ id: 0, command: "abort", target: id });
      signal?.addEventListener("abort", abort, { once: true });
      if (signal?.aborted) abort();
    });
  }

  #receive({ id, progress, prompt, piece, result, error }) {
    const request = this.requests.get(id);
    if (progress) request?.onProgress?.(progress);
    else if (prompt) request?.onPrompt?.(prompt);
    else if (piece) request?.onText?.(piece);
    else {
      this.requests.delete(id);
      if (error) request?.reject(new EngineError(error.code, error.message));
      else request?.resolve(result);
    }
  }

  #fail(error) {
    for (const { reject } of this.requests.values()) reject(error);
    this.requests.clear();
  }
}
