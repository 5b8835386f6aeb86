/** What surrounds the calls of onnxruntime: its errors, and the messages of the thread that it blocks. */

import { EngineError } from "./errors.js";

/** Let the thread read its messages, among them one that ends the text. A timer of a browser would take 4 ms. */
export function yieldThread() {
  return new Promise((resolve) => {
    if (globalThis.setImmediate) {
      setImmediate(resolve);
      return;
    }
    const channel = new MessageChannel();
    channel.port1.onmessage = () => {
      channel.port1.close();
      resolve();
    };
    channel.port2.postMessage(null);
  });
}

/** Run onnxruntime, and raise what it raises as an error for the user. */
export async function guard(name, bytes, run) {
  try {
    return await run();
  } catch (error) {
    const reason = String(error?.message ?? error).split("\n")[0];
    if (error instanceof RangeError || /memory|bad_alloc|alloc|OOM/i.test(reason)) {
      const size = Math.ceil(bytes.length / 1e6);
      throw new EngineError("memory", `there is no memory for ${name} (${size} MB); close other pages, or take a smaller model`);
    }
    throw new EngineError("runtime", `onnxruntime cannot run ${name}: ${reason}`);
  }
}
