"""How often builds of onnxruntime draw another symbol: Python's, the browser's, Node's and the C++ library's.

    python benchmarks/builds.py FILE... [--symbols 20000] [--modules node_modules] [--seed 1] [--json]

Python writes a text with each of five seeds. Each other build reads it, and draws at every position with the same
noise. At most 2 draws of 100,000 should differ. Then each build writes 500 characters with each seed, which should be
equal. FILE is a generator.onnx, with parameters if they are wanted: FILE,dry.dry_multiplier=0.8,mirostat.mirostat=2.

Needs headless Chromium, Node, the npm packages onnxruntime-web and onnxruntime-node, CMake, and onnxruntime for C++.
What is not there is left out. For the browser it also shows the characters a second, the time to the first character,
and the bytes that the page loads.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common

import gentext
from gentext.export.web import export_web
from gentext.library.bench import describe_machine

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests"))
from browser import CHROMIUM, running_browser  # noqa: E402
from static_server import QuietHandler, serve_folder  # noqa: E402

SEEDS = 5
#: Characters of the texts that the builds write.
WRITTEN = 500
Texts = list[dict[str, Any]]

#: Runs in the page: `compare` needs the generator itself, so it computes in the page's own thread.
BROWSER_COMPARE = """
    const { compare } = await import("/builds/measure.mjs");
    if (!window.generator) {
      const { Generator } = await import("/generator.js");
      const ort = await import("/ort.wasm.bundle.min.mjs");
      ort.env.wasm.numThreads = 1;
      const load = async (file) => (await fetch(file)).arrayBuffer();
      ort.env.wasm.wasmBinary = await load("/ort-wasm-simd-threaded.wasm");
      const bytes = new Uint8Array(await load("/generator.onnx"));
      window.generator = await Generator.open(ort, bytes, { sessionOptions: { executionProviders: ["wasm"] } });
    }
    return compare(generator, JOB);
"""
BROWSER_RATE = """
    const startedAt = performance.now();
    const engine = await (await import("/engine.js")).openEngine();
    const opened = performance.now() - startedAt;
    const { measureRate } = await import("/builds/measure.mjs");
    return { opened, ...(await measureRate(engine)) };
"""


class CountingHandler(QuietHandler):
    """Counts the bytes of the files that it serves."""

    loaded = 0

    def copyfile(self, source: Any, outputfile: Any) -> None:
        content = source.read()
        CountingHandler.loaded += len(content)
        outputfile.write(content)


def write_texts(file: Path, parameters: dict[str, float], symbols: int, first_seed: int) -> Iterator[dict[str, Any]]:
    """Yield the texts that the others read: each with seed, stream, parameters, its tokens and its beginning."""
    model = gentext.load(file, threads=1)
    for seed in range(first_seed, first_seed + SEEDS):
        [text] = model.write_many(count=1, length=symbols, seed=seed, params=parameters)
        yield {
            "seed": seed,
            "stream": 0,
            "parameters": parameters,
            "tokens": list(text.tokens)[:symbols],
            "written": text.text[:WRITTEN],
        }


def compare_in_node(file: Path, texts: Texts, modules: Path) -> dict[str, Any]:
    entry = modules / "onnxruntime-node" / "dist" / "index.js"
    command = ["node", ROOT / "benchmarks" / "builds" / "node.mjs", entry, file]
    job = json.dumps({"texts": texts, "length": WRITTEN})
    return dict(json.loads(subprocess.run(command, input=job, capture_output=True, text=True, check=True).stdout))


def compare_in_cpp(file: Path, texts: Texts, folder: Path) -> dict[str, Any]:
    """Compare with the library that CMake finds."""
    source = ROOT / "benchmarks" / "builds"
    subprocess.run(["cmake", "-S", source, "-B", folder], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", folder], check=True, capture_output=True)
    settings = [f"{name}={number}" for name, number in texts[0]["parameters"].items()]
    lines = [" ".join(map(str, [text["seed"], len(text["tokens"]), *text["tokens"]])) for text in texts]
    command = [folder / "forced", file, *settings]
    output = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=True).stdout
    results = []
    for text, line in zip(texts, output.splitlines(), strict=True):
        sets = [word for setting in settings for word in ("--set", setting)]
        command = [folder / "example" / "write", file, "--seed", str(text["seed"]), "--length", str(WRITTEN), *sets]
        written = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        results.append({"different": len(line.split()), "written": written[:-1]})
    return {"texts": results}


def compare_in_browser(file: Path, texts: Texts, modules: Path, folder: Path) -> dict[str, Any]:
    export_web(lambda: file, folder, modules / "onnxruntime-web")
    shutil.copytree(ROOT / "benchmarks" / "builds", folder / "builds")
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(serve_folder(folder, CountingHandler))
        profile = stack.enter_context(tempfile.TemporaryDirectory())
        browser = stack.enter_context(running_browser(Path(profile)))
        CountingHandler.loaded = 0
        browser.open(address)
        loaded = CountingHandler.loaded
        rate = browser.run_body(BROWSER_RATE)
        results = []
        for text in texts:  # one at a time: the browser must answer within a minute
            job = json.dumps({"texts": [text], "length": WRITTEN})
            results += browser.run_body(BROWSER_COMPARE.replace("JOB", job))
        version = browser.call("Browser.getVersion")["product"]
    return {"texts": results, "bytes": loaded, "version": version, **rate}


def describe_result(name: str, build: str, texts: Texts, result: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a build in the table."""
    return {
        "file": name,
        "build": build,
        "draws": sum(len(text["tokens"]) for text in texts),
        "differ": sum(text["different"] for text in result["texts"]),
        "equal texts": sum(
            text["written"] == other["written"] for text, other in zip(texts, result["texts"], strict=True)
        ),
        "characters/s": round(result["rate"]) if "rate" in result else None,
        "first, ms": round(result["first"], 1) if "first" in result else None,
        "opened, ms": round(result["opened"]) if "opened" in result else None,
        "MB": round(result["bytes"] / 1e6, 2) if "bytes" in result else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--symbols", type=int, default=20_000, help="of each of the five texts")
    parser.add_argument("--modules", type=Path, default=ROOT / "node_modules", help="folder of the npm packages")
    parser.add_argument("--seed", type=int, default=1, help="the first of five")
    parser.add_argument("--builds", default="Node,C++,Chromium", help="only these, with commas")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for argument in options.files:
        path, *settings = argument.split(",")
        file = Path(path).resolve()
        parameters = {name: float(number) for name, number in (setting.split("=") for setting in settings)}
        texts = list(write_texts(file, parameters, options.symbols, options.seed))
        modules = options.modules.resolve()
        with tempfile.TemporaryDirectory() as folder:
            for build in options.builds.split(","):
                if build == "Node" and shutil.which("node") and (modules / "onnxruntime-node").is_dir():
                    result = compare_in_node(file, texts, modules)
                elif build == "C++" and shutil.which("cmake"):
                    result = compare_in_cpp(file, texts, Path(folder) / "cpp")
                elif build == "Chromium" and CHROMIUM and (modules / "onnxruntime-web").is_dir():
                    result = compare_in_browser(file, texts, modules, Path(folder) / "web")
                else:
                    print(f"{build} is left out: it is not installed", file=sys.stderr)
                    continue
                rows.append(describe_result(path, build, texts, result))
    common.print_table(f"builds of onnxruntime against Python's, {describe_machine()}", rows, options.json)


if __name__ == "__main__":
    main()
