"""How fast a model of records writes them: the command, one record after another, and slots against the bare generator.

    python benchmarks/record_rates.py RUN [--count 30000] [--filter smiles] [--rounds 7] [--seconds 0.5] [--json]

The first table has elapsed times: of the whole command `gen sample` with so many records, and of an opened generator
that writes records of one row, one after another, in this process. The second one compares the records of
`model.records`, decoded and in order, whose rows begin the next record where one has ended, with calls of the bare
generator with as many rows, in processor time and one thread; idle positions of rows count for nothing. With `--filter`
the command throws away what the filter refuses.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common
from slots import Call, bare_calls, measure

from gentext.library.loading import load
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.records.record_plan import MAX_RECORDS
from gentext.records.record_requests import RecordRequest, prepare_records
from gentext.requests.options import writing_options
from gentext.requests.spelling import KeywordSpelling
from gentext.run import GENERATOR_FILE

#: Slots, and rows of the bare generator.
ROWS = 256
#: Records that are written one after another; the time of more of them is computed from theirs.
ONE_BY_ONE = 500


def time_command(run: Path, count: int, filters: list[str]) -> tuple[float, int, str]:
    """Return the seconds of the whole command, the records that it wrote, and what it said."""
    command = [sys.executable, "-m", "gentext", "sample", str(run), "--count", str(count), "--seed", "1"]
    command += ["--temperature", "1", *(argument for name in filters for argument in ("--filter", name))]
    begin = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8")
    return time.perf_counter() - begin, len(done.stdout.splitlines()), done.stderr.strip()


def time_one_by_one(run: Path, length: int) -> float:
    """Return the seconds a record of an opened generator with one row."""
    model = load(run)
    model.write(length=length, seed=0, temperature=1)
    begin = time.perf_counter()
    for seed in range(ONE_BY_ONE):
        model.write(length=length, seed=seed, temperature=1)
    return (time.perf_counter() - begin) / ONE_BY_ONE


def record_calls(generator: OnnxGenerator, run: Path, rows: int) -> Call:
    """Return calls that write as many records as there are rows; their symbols are characters, and an end each."""
    options = writing_options(seed=1, parameters={"temperature": 1})
    request = RecordRequest(MAX_RECORDS, options=options, slots=rows)
    stream, _ = prepare_records(generator, run, request, KeywordSpelling())

    def call() -> int:
        return sum(len(next(stream).text) + 1 for _ in range(rows))

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--count", type=int, default=30_000)
    parser.add_argument("--filter", action="append", default=[], metavar="NAME", help="may be repeated")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    generator = common.open_generator(options.run / GENERATOR_FILE, threads=1)
    records = generator.bundle.records
    if records is None:
        raise SystemExit(f"{options.run} is no model of records")
    length = 2 * records.longest
    seconds, count, messages = time_command(options.run, options.count, options.filter)
    alone = time_one_by_one(options.run, length)
    elapsed: list[dict[str, Any]] = [
        {"what": "gen sample", "records": count, "seconds": seconds, "milliseconds a record": 1000 * seconds / count},
        {"what": "one by one", "records": ONE_BY_ONE, "seconds": alone * ONE_BY_ONE}
        | {"milliseconds a record": 1000 * alone},
        {"what": "one by one, times", "records": "", "seconds": "", "milliseconds a record": alone * count / seconds},
    ]
    common.print_table("records, elapsed time", elapsed, options.json)
    print(messages, file=sys.stderr)
    cases = {
        "bare": bare_calls(generator, ROWS),
        "records": record_calls(generator, options.run, ROWS),
    }
    rates = measure(cases, options.rounds, options.seconds)
    shares = [record / bare for record, bare in zip(rates["records"], rates["bare"], strict=True)]
    table = [
        {"figure": title, "median": statistics.median(values), "lowest": min(values), "highest": max(values)}
        for title, values in {**rates, "records, as a share of bare": shares}.items()
    ]
    common.print_table(f"symbols a second, {ROWS} rows, one thread", table, options.json)


if __name__ == "__main__":
    main()
