/** node node.mjs PACKAGE FILE < job: prints what `compare` returns. PACKAGE is the entry of onnxruntime-node. */

import { readFileSync } from "node:fs";
import { Generator } from "../../data/page/generator.js";
import { compare, measureRate } from "./measure.mjs";

const [entry, file] = process.argv.slice(2);
const { default: ort } = await import(entry);
const sessionOptions = { intraOpNumThreads: 1 };
const generator = await Generator.open(ort, new Uint8Array(readFileSync(file)), { sessionOptions });
const texts = await compare(generator, JSON.parse(readFileSync(0, "utf8")));
console.log(JSON.stringify({ texts, ...(await measureRate(generator)) }));
