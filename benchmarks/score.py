"""How fast ``gen score`` reads records, against the fp32 generator of the same run that writes 64 texts side by side.

    python benchmarks/score.py RUN FILE --count 1000000

Both are measured in turn, so that each ratio is of two neighbouring measurements. The command is a process of its own,
with its start, its reading and its writing; its symbols are those of all records, whether or not other records begin
with them too. Its memory is its largest resident set, for all records and for an eighth of them.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from common import generator, print_table

from gentext.data.corpus import iter_text
from gentext.data.records import read_lines
from gentext.library.bench import median_ratio, prepare_measurement

#: Rows of the generator.
ROWS = 64
#: The chain of the generator: the default one.
CHAIN = ("match", "top_k", "top_p", "min_p", "temperature")


#: Seconds between two looks at the memory of the command.
LOOK_SECONDS = 0.05


class Measured(NamedTuple):
    """A run of the command."""

    symbols: int
    seconds: float
    megabytes: float


def score(run: Path, records: Path, target: Path) -> Measured:
    """Run the command on a file with a record in each line."""
    command = ["score", run, records, "--records", "lines", "--no-text", "--format", "csv", "-o", target]
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "gentext.cli", *map(str, command)])
    peak = 0
    while process.poll() is None:
        time.sleep(LOOK_SECONDS)
        peak = max(peak, peak_memory(process.pid))
    seconds = time.perf_counter() - began
    assert process.returncode == 0
    with target.open(encoding="utf-8", newline="") as file:
        symbols = sum(int(row["symbols"]) for row in csv.DictReader(file))
    return Measured(symbols, seconds, peak / 1000)


def peak_memory(process: int) -> int:
    """Return the largest resident set that a process has had, in kilobytes; 0 once it has ended."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
        return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("file", help="a text with a record in each line")
    parser.add_argument("--count", type=int, default=100_000, help="records that are scored, at most")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records, beginning, target = Path(folder, "records"), Path(folder, "beginning"), Path(folder, "scores.csv")
        lines = list(itertools.islice(filter(None, read_lines(iter_text(options.file))), options.count))
        for path, count in ((records, len(lines)), (beginning, len(lines) // 8)):
            path.write_text("\n".join(lines[:count]) + "\n", encoding="utf-8")
        writing = prepare_measurement(generator(options.run, Path(folder, "fp32"), "fp32", CHAIN), ROWS)
        writing_rates, measured = [], []
        for _ in range(options.turns):
            writing_rates.append(writing())
            measured.append(score(options.run, records, target))
        rates = [turn.symbols / turn.seconds for turn in measured]
        row = {
            "records": len(lines),
            "symbols": measured[0].symbols,
            "scored a second": statistics.median(rates),
            f"fp32 generator, {ROWS} rows": statistics.median(writing_rates),
            "ratio": median_ratio(rates, writing_rates),
            "MB": max(turn.megabytes for turn in measured),
            "MB for an eighth": score(options.run, beginning, target).megabytes,
        }
    print_table("gen score, symbols a second", [row], options.json)


if __name__ == "__main__":
    main()
