"""What the most probable symbols cost in a generator: when no call asks for them, and when calls ask for ten.

    python benchmarks/top_symbols.py RUN [--precision int8] [--threads 1] [--json]

Calls of one position and of several, with one text and with 64. Each is compared with the same call of the same graph
without the output: processor time, the tenth percentile of interleaved calls, which other programs hardly change. A
second session of the graph without the output shows the noise.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import numpy as np
import onnx

from gentext.exported.signature import TOP_COUNT, TOP_OUTPUTS
from gentext.generation.model_calls import first_feeds
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.plugins.samplers.runtime import CPU_PROVIDER, create_session

#: Rows and positions of a call, and how many are timed.
CALLS = {(1, 1): 4000, (1, 4): 1500, (1, 64): 200, (64, 1): 800, (64, 4): 300, (64, 16): 100}


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
    return first_feeds(signature, rows) | {
        "forced": np.full((positions, rows), -1),
        "noise": np.random.default_rng(0).random((positions, rows, signature.columns), np.float32),
    }


def measure(cases: dict[str, Case], size: tuple[int, int], calls: int) -> list[dict[str, Any]]:
    """Return the table of calls of so many rows and positions. The first case is what the others are compared with."""
    nanoseconds: dict[str, list[int]] = {title: [] for title in cases}
    for turn in range(calls):
        for title in list(cases) if turn % 2 else list(reversed(cases)):
            case = cases[title]
            feeds = case.feeds[size] | ({TOP_COUNT: np.array(case.count)} if case.count else {})
            started_at = time.process_time_ns()
            case.session.run(case.outputs, feeds)
            nanoseconds[title].append(time.process_time_ns() - started_at)
    microseconds = {title: float(np.percentile(measured, 10)) / 1e3 for title, measured in nanoseconds.items()}
    base = microseconds[next(iter(cases))]
    rows, positions = size
    return [
        {"texts": rows, "positions": positions, "file": title, "us a call": measured, "ratio": measured / base}
        for title, measured in microseconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--threads", type=int, default=1)
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
        feeds = {size: make_feeds(generator, *size) for size in CALLS}
        cases = {
            "without the output": Case(plain, names, feeds),
            "the same file again": Case(again, names, feeds),
            "with it, nobody asks": Case(session, names, feeds),
            "with it, ten are asked for": Case(session, [*names, *TOP_OUTPUTS], feeds, 10),
        }
        grown = generator.session.path.stat().st_size - plain_path.stat().st_size
        table = [row for size, calls in CALLS.items() for row in measure(cases, size, calls)]
    title = f"the most probable symbols, {options.precision}, {options.threads} threads, {grown} bytes of the file"
    common.print_table(title, table, options.json)


if __name__ == "__main__":
    main()
