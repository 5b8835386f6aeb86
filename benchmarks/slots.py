"""How many symbols a second slots write, against the bare generator: calls with noise whose results nobody decodes.

    python benchmarks/slots.py RUN [--rounds 7] [--seconds 0.5] [--json]

All cases take turns in one process with one thread, as a worker of `gen serve` has. Times are processor times, so that
other programs hardly change them. A figure is the median over the rounds of the ratio of two neighbouring measurements.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np

from gentext.exported.signature import DRAW
from gentext.generation.model_calls import MAX_LOGITS, MAX_POSITIONS, first_feeds, next_feeds
from gentext.generation.row_table import draw_noise
from gentext.generation.rows import RowRequest, Slot, row_requests
from gentext.generation.slots import Slots
from gentext.generation.writing import prepare_writing
from gentext.plugins.samplers.onnx import OnnxGenerator
from gentext.requests.options import writing_options
from gentext.requests.spelling import KeywordSpelling

#: Characters of a text that goes on for longer than is measured.
LONG = 10**8

#: Runs one call, and returns how many symbols it has written.
Call = Callable[[], int]


def bare_calls(generator: OnnxGenerator, rows: int) -> Call:
    """Return calls of the generator alone, with the noise of the draw."""
    model = generator.model
    assert model is not None
    signature, keys = model.signature, np.array([(1, row) for row in range(rows)], np.uint64)
    size = max(1, min(MAX_POSITIONS, MAX_LOGITS // (rows * generator.bundle.vocab_size)))
    unused = [name for name in signature.noise if name != DRAW]
    feeds = first_feeds(signature, rows)
    forced = np.full((size, rows), -1, np.int64)
    drawn = itertools.count(0, size)

    def call() -> int:
        nonlocal feeds
        noise = draw_noise(signature, keys, np.full(rows, next(drawn), np.int64), size, unused)
        feeds = next_feeds(signature, model.call(feeds | {"forced": forced, "noise": noise}))
        return size * rows

    return call


def requests(generator: OnnxGenerator, count: int, length: int, *, keeps_state: bool = True) -> Iterator[RowRequest]:
    """Yield requests without end, without primes. The first texts are shorter, so that not all of them end together."""
    options = writing_options(count=1, length=length, seed=1)
    writing = prepare_writing(generator, [""], options, KeywordSpelling())
    [request] = row_requests(writing, keeps_state=keeps_state, keeps_tokens=False, streams=True)
    for stream in itertools.count():
        own_length = length if stream >= count else max(1, length * (stream + 1) // count)
        yield dataclasses.replace(request, stream=stream, length=own_length, most_symbols=own_length)


def slot_calls(
    generator: OnnxGenerator, count: int, *, busy: int | None = None, length: int = LONG, keeps_state: bool = True
) -> Call:
    """Return calls of so many slots. The first ``busy`` of them write texts of so many characters, one after another.

    All slots are filled, and those that are not to be busy are left again, every second one.
    """
    assert generator.model is not None
    slots = Slots(generator.model, generator.bundle, count)
    waiting = requests(generator, count, length, keeps_state=keeps_state)
    joined = [slots.join(next(waiting)) for _ in range(count)]
    for slot in joined[1::2] if busy is not None else []:
        slots.leave(slot)
    busy = count if busy is None else busy

    counts: dict[Slot, int] = {}

    def call() -> int:
        for _ in range(busy - slots.busy):
            slots.join(next(waiting))
        symbols = 0
        for piece in slots.advance():
            symbols += piece.token_count - counts.pop(piece.slot, 0)
            if piece.finish == "running":
                counts[piece.slot] = piece.token_count
        return symbols

    return call


def symbols_per_second(call: Call, seconds: float) -> float:
    """Return the symbols a second of processor time over at least so many seconds of it."""
    symbols, begin = 0, time.process_time()
    while (elapsed := time.process_time() - begin) < seconds:
        symbols += call()
    return symbols / elapsed


def measure(cases: dict[str, Call], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Return the symbols a second of each case in each round, after a first one that does not count."""
    measured: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name in cases if turn % 2 else reversed(cases):
            rate = symbols_per_second(cases[name], seconds)
            if turn:
                measured[name].append(rate)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    generator = common.open_generator(options.run, threads=1)
    cases = {
        **{f"bare {rows}": bare_calls(generator, rows) for rows in (1, 32, 64, 256, 1000)},
        "slots 1": slot_calls(generator, 1),
        "slots 32 of 64": slot_calls(generator, 64, busy=32),
        "slots 64": slot_calls(generator, 64),
        "slots 1000": slot_calls(generator, 1000),
        "slots 256, 100 characters": slot_calls(generator, 256, length=100),
        "slots 256, 100 characters, no states": slot_calls(generator, 256, length=100, keeps_state=False),
    }
    rates = measure(cases, options.rounds, options.seconds)

    def ratios(name: str, base: str) -> list[float]:
        return [rate / base_rate for rate, base_rate in zip(rates[name], rates[base], strict=True)]

    gains = zip(ratios("slots 64", "slots 1"), ratios("bare 64", "bare 1"), strict=True)
    figures: dict[str, list[float]] = {
        "64 slots, every second one busy, against 32 rows": ratios("slots 32 of 64", "bare 32"),
        "64 slots against one, as a share of 64 rows against one": [slots / bare for slots, bare in gains],
        "1,000 slots against 1,000 rows": ratios("slots 1000", "bare 1000"),
        "one slot against one row": ratios("slots 1", "bare 1"),
        "64 slots against 64 rows": ratios("slots 64", "bare 64"),
        "256 slots, texts of 100 characters with states, against 256 rows": ratios(
            "slots 256, 100 characters", "bare 256"
        ),
        "the same without states": ratios("slots 256, 100 characters, no states", "bare 256"),
    }
    table: list[dict[str, Any]] = [
        {"figure": title, "median": statistics.median(values), "lowest": min(values), "highest": max(values)}
        for title, values in figures.items()
    ]
    table += [
        {"figure": f"symbols a second: {name}", "median": statistics.median(values), "lowest": min(values)}
        | {"highest": max(values)}
        for name, values in rates.items()
    ]
    common.print_table("slots, one thread", table, options.json)


if __name__ == "__main__":
    main()
