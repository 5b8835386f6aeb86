"""Print, room by room, how many branches ``make test`` covers of those that ``make check`` covers.

``make branches`` measures both parts, with pytest-cov, and then runs this program. Processes that tests start are not
measured.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import coverage

#: Of the branches that make check covers, make test is to cover at least so many in each room.
EXPECTED = 0.97
Branches = dict[str, set[tuple[int, int]]]


def read_branches(path: str) -> Branches:
    """Return the branches, each a line and the line after it, that were taken in each file of a measurement."""
    measured = coverage.CoverageData(path)
    measured.read()
    report = coverage.Coverage(data_file=path, config_file="pyproject.toml")
    report.load()
    branches: Branches = {}
    for file in measured.measured_files():
        begins = set(report.branch_stats(file))  # the lines that have several exits
        branches[file] = {(begin, end) for begin, end in measured.arcs(file) or () if begin in begins}
    return branches


def room_of(file: str) -> str:
    """Return the folder of a file, of ``plugins`` with the first folder in it."""
    parts = Path(file).parts[:-1]
    return "/".join(parts[:2])


def main(quick_path: str, slow_path: str) -> int:
    quick, slow = read_branches(quick_path), read_branches(slow_path)
    covered: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    missing: list[str] = []
    for file in sorted(quick.keys() | slow.keys()):
        quick_branches, both = quick.get(file, set()), quick.get(file, set()) | slow.get(file, set())
        counts = covered[room_of(file)]
        counts[0] += len(quick_branches)
        counts[1] += len(both)
        missing += [f"{file}:{begin} -> {end}" for begin, end in sorted(both - quick_branches)]
    print("| room | make test | make check | portion |\n|---|---:|---:|---:|")
    low = 0
    for room, (few, all_) in sorted(covered.items()):
        low += few < EXPECTED * all_
        print(f"| {room} | {few} | {all_} | {few / max(all_, 1):.3f}{' *' * (few < EXPECTED * all_)} |")
    print("\nOnly in make slow:", *missing, sep="\n")
    return int(low > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
