/** The worker in which the model computes, so that the page never waits. `wasm_engine.js` speaks with it. */

import { EngineError } from "./errors.js";
import { Generator } from "./generator.js";

/** A module with one instruction of SIMD (i8x16.splat), which the WASM build needs. */
const SIMD_MODULE = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
];

let generator;
/** The texts that are written, by the number of their request. */
const controllers = new Map();
const commands = { open, write, abort };

self.onmessage = async ({ data: { id, command, ...request } }) => {
  try {
    const result = await commands[command](request, (message) => self.postMessage({ id, ...message }), id);
    self.postMessage({ id, result });
  } catch (error) {
    const code = error instanceof EngineError ? error.code : "runtime";
    self.postMessage({ id, error: { code, message: String(error.message) } });
  }
};

async function open({ settings }, post) {
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(Uint8Array.from(SIMD_MODULE))) {
    const lacking = typeof WebAssembly === "object" ? "WebAssembly with SIMD" : "WebAssembly";
    throw new EngineError("no_webassembly", `this browser has no ${lacking}, or it is turned off; take another browser`);
  }
  const onProgress = (progress) => post({ progress });
  const [model, wasm, ort] = await Promise.all([
    load(settings.generator, onProgress),
    load(settings.wasm, onProgress),
    importScript(settings.ort),
  ]);
  ort.env.wasm.numThreads = 1; // more need special headers of the server
  ort.env.wasm.wasmBinary = wasm.buffer;
  try {
    generator = await Generator.open(ort, model, { name: settings.generator, sessionOptions: { executionProviders: ["wasm"] } });
  } catch (error) {
    if (error.code !== "runtime" || WebAssembly.validate(wasm)) throw error;
    throw new EngineError("damaged", `${settings.wasm} is damaged; export the folder again: gen export RUN --web DIR`);
  }
  return generator.describe();
}

async function write({ request }, post, id) {
  const controller = new AbortController();
  controllers.set(id, controller);
  try {
    const [onText, onPrompt] = [(piece) => post({ piece }), (prompt) => post({ prompt })];
    return await generator.write({ ...request, signal: controller.signal, onText, onPrompt });
  } finally {
    controllers.delete(id);
  }
}

function abort({ target }) {
  controllers.get(target)?.abort();
}

/** Return the bytes of a file that lies beside this one. */
async function load(file, onProgress) {
  const lost = () => new EngineError("network", `${file} cannot be loaded: the network is gone, or its server; try again`);
  const response = await fetch(new URL(file, import.meta.url)).catch(() => {
    throw lost();
  });
  if (!response.ok) {
    throw new EngineError("network", `${file} cannot be loaded: the server answered ${response.status}; is the folder whole?`);
  }
  // With a compressed answer the length is that of the compressed bytes, so the total is unknown.
  const total = response.headers.has("content-encoding") ? 0 : Number(response.headers.get("content-length") ?? 0);
  const parts = [];
  let loaded = 0;
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read().catch(() => {
      throw lost();
    });
    if (done) break;
    parts.push(value);
    loaded += value.length;
    onProgress({ file, loaded, total });
  }
  const bytes = new Uint8Array(loaded);
  parts.reduce((position, part) => (bytes.set(part, position), position + part.length), 0);
  return bytes;
}

/** Import a module that lies beside this one, also from servers that do not know the ending .mjs as JavaScript. */
async function importScript(file) {
  const url = new URL(file, import.meta.url);
  try {
    return await import(url);
  } catch {
    const script = new Blob([await load(file, () => {})], { type: "text/javascript" });
    return import(URL.createObjectURL(script));
  }
}
