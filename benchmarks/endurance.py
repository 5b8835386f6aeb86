"""Whether a character costs the same after a million, and how many streams fit side by side.

python benchmarks/endurance.py FILE.onnx [--characters 1000000] [--streams 4096] [--json]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
import numpy as np

from gentext.plugins.samplers.onnx import OnnxGenerator

LENGTH_MANY = 256


def long_text(opened: OnnxGenerator, characters: int) -> list[Mapping[str, Any]]:
    """Write one text; return rate and memory of its first and last tenth."""
    links = common.chain(opened)
    tenth = characters // 10
    stamps, sizes, count = [time.perf_counter()], [common.resident()], 0
    for chunk in opened.generate(common.request(links, 1, links.param_arrays(1), characters)):
        count += len(chunk.tokens)
        if count >= tenth * len(stamps):
            stamps.append(time.perf_counter())
            sizes.append(common.resident())
    return [
        {
            "what": f"one text, {name} tenth of {characters:,}",
            "characters a second": tenth / (stamps[at + 1] - stamps[at]),
            "MB resident": sizes[at + 1],
        }
        for name, at in (("first", 0), ("last", 9))
    ]


def many_streams(opened: OnnxGenerator, streams: int) -> Mapping[str, Any]:
    links = common.chain(opened)
    begin = time.perf_counter()
    asked = common.request(links, streams, links.param_arrays(streams), LENGTH_MANY)
    count = sum(int(np.sum(chunk.tokens >= 0)) for chunk in opened.generate(asked))
    return {
        "what": f"{streams:,} texts of {LENGTH_MANY}",
        "characters a second": count / (time.perf_counter() - begin),
        "MB resident": common.resident(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--characters", type=int, default=1_000_000)
    parser.add_argument("--streams", type=int, default=4096)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    opened = common.open_generator(options.file)
    rows = [*long_text(opened, options.characters), many_streams(opened, options.streams)]
    common.show("endurance", rows, options.json)


if __name__ == "__main__":
    main()
