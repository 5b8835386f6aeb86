"""Runs JavaScript in Node: any module, or requests to a generator over an npm package of onnxruntime."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from node_packages import NODE, find_package

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "data" / "page"

#: Runs requests one after the other; in place of a session stands the number of the request whose session it is.
JAVASCRIPT_WRITER = f"""
import {{ readFileSync }} from "node:fs";
import {{ Generator }} from "{PAGE.as_uri()}/generator.js";
const [runtime, file, requests] = process.argv.slice(1);
const module = await import(runtime);
const ort = module.default?.InferenceSession ? module.default : module;
const isWeb = runtime.includes("wasm");
if (isWeb) ort.env.wasm.numThreads = 1;
const sessionOptions = isWeb ? {{ executionProviders: ["wasm"] }} : {{ intraOpNumThreads: 1 }};
const results = [];
try {{
  const generator = await Generator.open(ort, new Uint8Array(readFileSync(file)), {{ sessionOptions }});
  for (const request of JSON.parse(requests)) {{
    let streamed = "";
    let prompt = [];
    const join = (tokens) => tokens.map((token) => token.text).join("");
    const onText = ({{ text, tokens }}) => (streamed += join(tokens) === text ? text : "?");
    const session = request.session === undefined ? null : results[request.session].session;
    try {{
      const result = await generator.write({{ ...request, session, onText, onPrompt: (tokens) => (prompt = tokens) }});
      results.push({{ ...result, seed: String(result.seed), streamed, prompt }});
    }} catch (error) {{
      results.push({{ error: error.message, code: error.code }});
    }}
  }}
}} catch (error) {{
  results.push({{ error: error.message, code: error.code }});
}}
console.log(JSON.stringify(results, (key, entry) => (key === "session" ? undefined : entry)));
"""
RUNTIMES = {"onnxruntime-web": "dist/ort.wasm.min.mjs", "onnxruntime-node": "dist/index.js"}


def run_javascript(script: str, *arguments: str, input_text: str = "") -> Any:
    """Return the JSON that a module prints in Node, which reads a text from stdin."""
    command = [str(NODE), "--input-type=module", "--eval", script, *arguments]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, input=input_text).stdout)


def write_in_javascript(package: str, file: Path, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the results of requests, or the errors, of a generator over an npm package."""
    runtime = find_package(package) / RUNTIMES[package]
    results: list[dict[str, Any]] = run_javascript(JAVASCRIPT_WRITER, str(runtime), str(file), json.dumps(requests))
    return results
