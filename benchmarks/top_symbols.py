"""What the most probable symbols cost in a generator: when no call asks for them, and when calls ask for ten.

    python benchmarks/top_symbols.py RUN [--precision int8] [--threads 1] [--repeats 100] [--json]

Calls of one position and of many, with one text and with 64. Each is compared with the same call of the same graph
without the output: medians of the ratios of processor time in interleaved runs, with their quartiles. When nobody
asks, the ratio should be at most 1.01. A second session of the graph without the output shows the noise.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import numpy as np
import onnx

from gentext.compiled import start_states
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.plugins.samplers.runtime import CPU_PROVIDER, create_session
from gentext.signature import TOP_COUNT, TOP_OUTPUTS

#: Rows and positions of a call, and how many calls are timed together.
CALLS = ((1, 1, 32), (1, 16, 8), (1, 256, 1), (64, 1, 16), (64, 16, 1))


@dataclasses.dataclass(frozen=True)
class Case:
    """A session, what its calls fetch, and their inputs by rows and positions."""

    session: Any
    outputs: list[str]
    feeds: dict[tuple[int, int], dict[str, Any]]
    count: int = 0


def remove_top_symbols(path: Path, plain_path: Path) -> None:
    """Write the file again without the input and the outputs of the most probable symbols, and what computes them."""
    model = onnx.load(path)
    dependent_names = {TOP_COUNT}
    for node in [*model.graph.node]:
        if dependent_names & {*node.input}:
            dependent_names |= {*node.output}
            model.graph.node.remove(node)
    for output in [output for output in model.graph.output if output.name in dependent_names]:
        model.graph.output.remove(output)
    for tensors in (model.graph.input, model.graph.initializer):
        for tensor in [tensor for tensor in tensors if tensor.name == TOP_COUNT]:
            tensors.remove(tensor)
    onnx.save(model, plain_path)


def make_feeds(generator: OnnxGenerator, rows: int, positions: int) -> dict[str, Any]:
    """Return the inputs of a first call without forced symbols."""
    signature = generator.session.signature
    return start_states(signature, rows) | {
        "token": np.zeros(rows, np.int64),
        "fresh": np.ones(rows, np.bool_),
        "forced": np.full((positions, rows), -1),
        "noise": np.random.default_rng(0).random((positions, rows, signature.columns), np.float32),
    }


def measure_call(session: Any, names: list[str], feeds: dict[str, Any], calls: int) -> float:
    """Return the seconds of processor time that so many calls take, with these outputs fetched."""
    started_at = time.process_time_ns()
    for _ in range(calls):
        session.run(names, feeds)
    return (time.process_time_ns() - started_at) / 1e9


def measure(cases: dict[str, Case], call: tuple[int, int, int], repeats: int) -> list[dict[str, Any]]:
    """Return the table of one size of call. The first case is what the others are compared with."""
    rows, positions, calls = call
    seconds: dict[str, list[float]] = {title: [] for title in cases}
    for turn in range(repeats + 3):
        for title in list(cases) if turn % 2 else list(reversed(cases)):
            case = cases[title]
            count = {TOP_COUNT: np.array(case.count)} if case.count else {}
            measured = measure_call(case.session, case.outputs, case.feeds[rows, positions] | count, calls)
            if turn >= 3:  # the first are a warm-up
                seconds[title].append(measured / calls)
    base_seconds = seconds[next(iter(cases))]
    table = []
    for title, measured_seconds in seconds.items():
        ratios = [measured / base for measured, base in zip(measured_seconds, base_seconds, strict=True)]
        low, middle, high = statistics.quantiles(ratios)
        table.append(
            {
                "texts": rows,
                "positions": positions,
                "file": title,
                "us a call": 1e6 * statistics.median(measured_seconds),
                "ratio": middle,
                "quartiles": f"{low:.3f} to {high:.3f}",
            }
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compiler = common.GeneratorCompiler(options.run, Path(folder), options.precision, options.threads)
        generator = compiler.compile(common.DEFAULT, {})
        plain_path = Path(folder) / "plain.onnx"
        remove_top_symbols(generator.session.path, plain_path)
        plain, again = (create_session(plain_path, [CPU_PROVIDER], options.threads) for _ in range(2))
        session = generator.session.session
        names = [output.name for output in plain.get_outputs()]
        feeds = {(rows, positions): make_feeds(generator, rows, positions) for rows, positions, _ in CALLS}
        cases = {
            "without the output": Case(plain, names, feeds),
            "the same file again": Case(again, names, feeds),
            "with it, nobody asks": Case(session, names, feeds),
            "with it, ten are asked for": Case(session, [*names, *TOP_OUTPUTS], feeds, 10),
        }
        grown = generator.session.path.stat().st_size - plain_path.stat().st_size
        table = [row for call in CALLS for row in measure(cases, call, options.repeats)]
    title = f"the most probable symbols, {options.precision}, {options.threads} threads, {grown} bytes of the file"
    common.print_table(title, table, options.json)


if __name__ == "__main__":
    main()
