"""What links cost: the default chain with every link active against top_k alone, and rows that differ.

    python benchmarks/links.py RUN [--precision fp32] [--threads 2] [--json]

Microseconds a position, medians of interleaved runs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import numpy as np

from gentext.chain import LinkArraysDict
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.run import GENERATOR_FILE

REPEATS = 9
#: Positions to measure, by the number of rows.
POSITIONS = {1: 3000, 64: 400}


def seconds_per_position(generator: OnnxGenerator, rows: int, params: LinkArraysDict) -> float:
    """Write with these parameters once, and return how long a position took."""
    chain, positions = common.chain(generator), POSITIONS[rows]
    started_at = time.perf_counter()
    for _ in generator.generate(common.request(chain, rows, params, positions)):
        pass
    return (time.perf_counter() - started_at) / positions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        generators = {}
        for name, links in (("alone", ["top_k"]), ("default", common.DEFAULT)):
            common.generator(options.run, Path(folder) / name, options.precision, links)
            generators[name] = common.open_generator(Path(folder) / name / GENERATOR_FILE, options.threads)
    alone, default = (common.chain(generator) for generator in generators.values())
    active = {name: common.LINKS[name] for name in common.DEFAULT}
    temperature = {"temperature": active["temperature"]}
    cases: dict[str, tuple[str, int, LinkArraysDict]] = {
        "top_k alone": ("alone", 1, alone.param_arrays(1)),
        "default chain, as it is": ("default", 1, default.param_arrays(1)),
        "default chain, temperature 0.8": ("default", 1, default.param_arrays(1, temperature)),
        "default chain, every link active": ("default", 1, default.param_arrays(1, active)),
        "64 rows, all equal": ("default", 64, default.param_arrays(64, active)),
        "64 rows, all different": ("default", 64, common.varied_params(default, 64)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(REPEATS + 1):
        for name, (generator_name, rows, params) in cases.items():
            measured = seconds_per_position(generators[generator_name], rows, params)
            if turn:  # the first is a warm-up
                seconds[name].append(measured)
    table: list[dict[str, Any]] = []
    for name, (_, rows, _) in cases.items():
        base = "top_k alone" if rows == 1 else "64 rows, all equal"
        ratios = [a / b for a, b in zip(seconds[name], seconds[base], strict=True)]
        table.append(
            {
                "case": name,
                "us a position": 1e6 * statistics.median(seconds[name]),
                "against": base,
                "ratio": float(np.median(ratios)),
            }
        )
    common.print_table(f"what links cost, {options.precision}, {options.threads or 'all'} threads", table, options.json)


if __name__ == "__main__":
    main()
