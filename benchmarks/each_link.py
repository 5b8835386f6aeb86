"""What each built-in link costs a position, compiled: active and alone, against top_k alone; and all of them, inactive.

    python benchmarks/each_link.py RUN [--precision fp32] [--threads 1] [--json]

Microseconds a position at one row and at 64, medians of interleaved runs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import common
import numpy as np
import torch

from gentext.chain import Chain, LinkArraysDict
from gentext.describe import configured_chain, describe, load_tokenizer
from gentext.export.generator.compiler import Compiler
from gentext.export.network.int8 import to_int8
from gentext.export.network.step import step_graph
from gentext.export.proto import serialize_model
from gentext.manager import host
from gentext.plugins.pytorch import build_model, load_best_checkpoint
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.run import open_run

REPEATS = 9
#: Positions to measure, by the number of rows.
POSITIONS = {1: 768, 64: 128}
BASE, INACTIVE = "top_k", "all but top_k inactive"


def seconds_per_position(generator: OnnxGenerator, chain: Chain, params: LinkArraysDict, rows: int) -> float:
    """Write with these parameters once, and return how long a position took."""
    started_at = time.perf_counter()
    for _ in generator.generate(common.request(chain, rows, params, POSITIONS[rows])):
        pass
    return (time.perf_counter() - started_at) / POSITIONS[rows]


def build_chains(vocab_size: int) -> dict[str, Chain]:
    """Return a chain of each link alone, and one of all."""
    registry = host().registry
    names = configured_chain(registry, {"links": ["all"]}, vocab_size).names
    chains = {
        name: configured_chain(registry, {"links": [name], name: common.OPTIONS.get(name, {})}, vocab_size)
        for name in names
    }
    return chains | {INACTIVE: configured_chain(registry, {"links": ["all"]}, vocab_size)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--precision", choices=("fp32", "int8"), default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    run = open_run(options.run)
    model = build_model(run, load_best_checkpoint(run))
    bundle = describe(run, model)
    tokenizer = load_tokenizer(bundle.tokenizer.name, bundle.tokenizer.state)
    with torch.no_grad():
        step = step_graph(model, bundle)
    if options.precision == "int8":
        step = to_int8(step, bundle)
    chains, generators = build_chains(bundle.vocab_size), {}
    with tempfile.TemporaryDirectory() as folder:
        for name, chain in chains.items():
            path = Path(folder) / f"{name.replace(' ', '_')}.onnx"
            compiler = Compiler(step, bundle, chain, chain.table_arrays(tokenizer))
            path.write_bytes(serialize_model(compiler.compile_loop()))
            generators[name] = common.open_generator(path, options.threads)
    seconds: dict[tuple[str, int], list[float]] = {(name, rows): [] for name in chains for rows in POSITIONS}
    for turn in range(REPEATS + 1):
        for (name, rows), measured in seconds.items():
            numbers = {name: common.LINKS[name]} if name in common.LINKS else {}
            params = chains[name].param_arrays(rows, numbers)
            duration = seconds_per_position(generators[name], chains[name], params, rows)
            if turn:  # the first is a warm-up
                measured.append(duration)
    table = []
    for name in chains:
        row: dict[str, str | float] = {"link": name}
        for rows in POSITIONS:
            row[f"us, {rows} rows"] = 1e6 * float(np.median(seconds[name, rows]))
            row[f"ratio, {rows} rows"] = float(np.median(np.divide(seconds[name, rows], seconds[BASE, rows])))
        table.append(row)
    common.print_table(f"what each link costs, {options.precision}, {options.threads} threads", table, options.json)


if __name__ == "__main__":
    main()
