/**
 * Writes what gen sample writes:
 * node write.js FILE.onnx [--prime TEXT] [--seed N] [--stream N] [--length N] [--stop TEXT]... [--set PARAM=NUMBER]...
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { Generator } from "../../data/page/generator.js";

const text = { type: "string" };
const texts = { type: "string", multiple: true, default: [] };

function readOptions() {
  const { values, positionals } = parseArgs({
    options: { prime: text, seed: text, stream: text, length: text, stop: texts, set: texts },
    allowPositionals: true,
  });
  if (positionals.length !== 1) throw new Error("expected FILE.onnx");
  const { prime = "", seed = "1", stream = "0", length = "500", stop, set } = values;
  const parameters = Object.fromEntries(
    set.map((assignment) => {
      const [name, number] = assignment.split("=");
      return [name, Number(number)];
    }),
  );
  const whole = (name, digits) => {
    if (!/^\d+$/.test(digits)) throw new Error(`--${name} ${digits}: expected a whole number`);
    return BigInt(digits);
  };
  return {
    path: positionals[0],
    request: {
      prompt: prime,
      seed: whole("seed", seed),
      stream: whole("stream", stream),
      length: Number(whole("length", length)),
      stop,
      parameters,
    },
  };
}

/** Return the namespace of onnxruntime-node, which npm install brings. */
async function importRuntime() {
  try {
    return (await import("onnxruntime-node")).default;
  } catch {
    throw new Error("onnxruntime-node is not installed; run: ONNXRUNTIME_NODE_INSTALL=skip npm install");
  }
}

try {
  const { path, request } = readOptions();
  const ort = await importRuntime();
  const sessionOptions = { intraOpNumThreads: 1 };
  const generator = await Generator.open(ort, new Uint8Array(readFileSync(path)), { name: path, sessionOptions });
  process.stdout.write(request.prompt);
  await generator.write({ ...request, onText: (piece) => process.stdout.write(piece.text) });
  process.stdout.write("\n");
} catch (error) {
  console.error(`write: ${error.message}`);
  process.exitCode = 1;
}
