"""Measures whether a character takes as long after a million others, and how many texts fit side by side.

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

#: Characters of each of many texts.
SHORT_LENGTH = 256


def long_text(opened: OnnxGenerator, characters: int) -> list[Mapping[str, Any]]:
    """Write one text; return the rate and the memory of its first and last tenth."""
    links = common.chain(opened)
    tenth = characters // 10
    # Time and memory at the beginning and after each tenth.
    times, memory, count = [time.perf_counter()], [common.resident_memory()], 0
    for chunk in opened.generate(common.request(links, 1, links.param_arrays(1), characters)):
        count += len(chunk.tokens)
        if count >= tenth * len(times):
            times.append(time.perf_counter())
            memory.append(common.resident_memory())
    return [
        {
            "what": f"one text, {name} tenth of {characters:,}",
            "characters a second": tenth / (times[index + 1] - times[index]),
            "MB resident": memory[index + 1],
        }
        for name, index in (("first", 0), ("last", 9))
    ]


def many_streams(opened: OnnxGenerator, streams: int) -> Mapping[str, Any]:
    """Write many texts at once; return the rate and the memory."""
    links = common.chain(opened)
    started_at = time.perf_counter()
    request = common.request(links, streams, links.param_arrays(streams), SHORT_LENGTH)
    count = sum(int(np.sum(chunk.tokens >= 0)) for chunk in opened.generate(request))
    return {
        "what": f"{streams:,} texts of {SHORT_LENGTH}",
        "characters a second": count / (time.perf_counter() - started_at),
        "MB resident": common.resident_memory(),
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
    common.print_table("endurance", rows, options.json)


if __name__ == "__main__":
    main()
