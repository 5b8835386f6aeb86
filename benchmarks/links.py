"""What links cost: each built-in link alone, all of them turned off, and the default chain, against top_k alone.

    python benchmarks/links.py RUN [--precision fp32] [--threads 1] [--links dry,mirostat] [--repeats 9] [--json]

Microseconds of processor time a position, and ratios, medians of interleaved runs, with one text and with 64. Other
programs on the machine hardly change them. A link's ratio should be at most 1.35, and that of all links turned off,
with top_k active, at most 1.05.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common

from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.sampling.chain import LinkArraysDict

#: Positions to measure, by the number of rows.
POSITIONS = {1: 1500, 64: 150}
#: The case that the ratios compare with.
BASE = "top_k"


@dataclasses.dataclass(frozen=True)
class Case:
    """A chain with the values of its parameters, and with the options that fill its tables."""

    links: Sequence[str]
    numbers: common.Numbers
    options: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    is_varied: bool = False
    """Whether the parameters differ from row to row."""

    def params(self, generator: OnnxGenerator, rows: int) -> LinkArraysDict:
        chain = common.chain(generator)
        return common.varied_params(chain, rows) if self.is_varied else chain.param_arrays(rows, self.numbers)


def make_case(name: str, numbers: Mapping[str, float] | None = None) -> Case:
    """Return the case of one link alone, with values at which it has an effect."""
    options = {name: common.OPTIONS[name]} if name in common.OPTIONS else {}
    return Case([name], {name: common.LINKS.get(name, {}) if numbers is None else numbers}, options)


def make_link_cases(names: Sequence[str]) -> dict[str, Case]:
    """Return cases by their titles: each of these links alone, and all links turned off."""
    cases = {BASE: make_case(BASE)} | {name: make_case(name) for name in names}
    cases |= {title: make_case(name, numbers) for title, (name, numbers) in common.VARIANTS.items() if name in names}
    cases["all links, as they are"] = Case(["all"], {})
    return cases | {f"all links, only {BASE} active": Case(["all"], {**common.NEUTRAL, BASE: common.LINKS[BASE]})}


def make_default_cases() -> dict[str, Case]:
    """Return cases of the default chain by their titles."""
    default_numbers = {name: common.LINKS[name] for name in common.DEFAULT}
    return {
        "default chain, as it is": Case(common.DEFAULT, {}),
        "default chain, every link active": Case(common.DEFAULT, default_numbers),
        "default chain, every link active, rows differ": Case(common.DEFAULT, default_numbers, is_varied=True),
    }


def seconds_per_position(generator: OnnxGenerator, rows: int, params: LinkArraysDict) -> float:
    """Write with these parameters once, and return the processor time of a position, in all threads together."""
    chain, positions = common.chain(generator), POSITIONS[rows]
    request = common.request(chain, rows, params, positions)
    started_at = time.process_time()
    for _ in generator.generate(request):
        pass
    return (time.process_time() - started_at) / positions


def measure(
    generators: dict[str, OnnxGenerator], cases: dict[str, Case], rows: int, repeats: int
) -> list[dict[str, Any]]:
    """Return a table of all cases with so many texts."""
    params = {title: case.params(generators[title], rows) for title, case in cases.items()}
    seconds: dict[str, list[float]] = {title: [] for title in cases}
    base_seconds: dict[str, list[float]] = {title: [] for title in cases}
    for turn in range(repeats + 1):
        for title, generator in generators.items():
            # The base runs before every case: on a machine that others share, only neighbours in time compare.
            base_measured = seconds_per_position(generators[BASE], rows, params[BASE])
            measured = seconds_per_position(generator, rows, params[title])
            if turn:  # the first is a warm-up
                seconds[title].append(measured)
                base_seconds[title].append(base_measured)
    return [
        {
            "case": title,
            "texts": rows,
            "us a position": 1e6 * statistics.median(seconds[title]),
            "ratio": statistics.median(a / b for a, b in zip(seconds[title], base_seconds[title], strict=True)),
        }
        for title in cases
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--links", help="only these, with commas, and no default chain")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.links:
        cases = make_link_cases(options.links.split(","))
    else:
        cases = make_link_cases(common.link_names()) | make_default_cases()
    with tempfile.TemporaryDirectory() as folder:
        compiler = common.GeneratorCompiler(options.run, Path(folder), options.precision, options.threads)
        generators = {title: compiler.compile(case.links, case.options) for title, case in cases.items()}
        table = [row for rows in POSITIONS for row in measure(generators, cases, rows, options.repeats)]
    title = f"what links cost, {options.precision}, threads: {options.threads or 'all'}"
    common.print_table(title, table, options.json)


if __name__ == "__main__":
    main()
