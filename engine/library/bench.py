"""How fast a file writes on this machine: medians of several measurements, which are run in turn."""

from __future__ import annotations

import dataclasses
import itertools
import operator
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gentext.console import progress
from gentext.files.versions import installed_version
from gentext.generation.bulk import open_slots
from gentext.generation.rows import Slot, row_requests
from gentext.generation.writing import prepare_writing
from gentext.interfaces import OpenSampler, Request
from gentext.manager import host
from gentext.requests.declaration import MAX_TEXTS
from gentext.requests.options import writing_options
from gentext.requests.spelling import KeywordSpelling
from gentext.sampling.chain import Chain
from gentext.sampling.configured_chain import chain_of
from gentext.sampling.stored import stored_chain
from gentext.settings import cores

#: Numbers of rows that are written side by side.
BATCH_SIZES = (1, 8, 64, 256)
#: Seconds that each measurement should take.
MEASUREMENT_SECONDS = 1.0
#: Repetitions of each measurement.
REPEATS = 5
#: Instruction sets on which the speed of matrix products depends, as /proc/cpuinfo names them.
CPU_INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16")
#: A larger number of threads is chosen only if it is faster by this factor.
THREADS_MARGIN = 1.03

Name = TypeVar("Name")

#: A function that measures a rate once and returns it, in characters a second.
Measurement = Callable[[], float]


@dataclasses.dataclass(frozen=True)
class RateSummary:
    """Characters a second of all rows together: the median, the lowest and the highest of several measurements."""

    median: float
    low: float
    high: float


def measure_in_turn(measurements: Mapping[Name, Measurement], repeats: int) -> dict[Name, list[float]]:
    """Run each measurement once, then all of them again, ``repeats`` times; return the rates of each by name.

    A machine that others share is fast in one minute and slow in the next. Rates of the same turn are
    measured close together, so that they can be compared.
    """
    rates: dict[Name, list[float]] = {name: [] for name in measurements}
    with progress("measuring", repeats * len(measurements)) as bar:
        for _ in range(repeats):
            for name, measurement in measurements.items():
                rates[name].append(measurement())
                bar.advance()
    return rates


def summarize_rates(rates: list[float]) -> RateSummary:
    return RateSummary(statistics.median(rates), min(rates), max(rates))


def median_ratio(rates: list[float], base_rates: list[float]) -> float:
    """Return the median over the turns of the ratio of two rates."""
    return statistics.median(rate / base_rate for rate, base_rate in zip(rates, base_rates, strict=True))


def own_chain(sampler: OpenSampler) -> Chain:
    """Return the chain that is compiled into the file, or else the file's default chain."""
    bundle = sampler.bundle
    return stored_chain(bundle) if bundle.kind == "generator" else chain_of(bundle, host().registry)


def prepare_measurement(sampler: OpenSampler, batch: int, seconds: float = MEASUREMENT_SECONDS) -> Measurement:
    """Return a measurement that writes ``batch`` rows for about so many seconds.

    The length that takes so long is found by writing, which also warms up the file.
    """
    chain = own_chain(sampler)
    trial_length, trial_seconds = 16, 0.0
    while trial_seconds < seconds / 4:
        trial_length = min(trial_length * 4, 100_000)
        _, trial_seconds = _time_writing(sampler, chain, batch, trial_length)
    length = max(16, int(trial_length * seconds / trial_seconds))
    return lambda: operator.truediv(*_time_writing(sampler, chain, batch, length))


def fastest_threads(open_with: Callable[[int], OpenSampler], batch: int = 1, seconds: float = 0.1) -> tuple[int, float]:
    """Return the number of threads that write ``batch`` rows fastest, and the characters a second.

    ``open_with`` opens the model with a number of threads. More threads must be 3 % faster to be
    chosen, since they lose most when the machine is busy.
    """
    thread_counts = [1]
    while thread_counts[-1] < cores():
        thread_counts.append(min(2 * thread_counts[-1], cores()))
    measurements = {threads: prepare_measurement(open_with(threads), batch, seconds) for threads in thread_counts}
    medians = {threads: statistics.median(rates) for threads, rates in measure_in_turn(measurements, REPEATS).items()}
    best_rate = max(medians.values())
    return next((threads, rate) for threads, rate in medians.items() if rate * THREADS_MARGIN >= best_rate)


def _time_writing(sampler: OpenSampler, chain: Chain, batch: int, length: int) -> tuple[int, float]:
    """Write ``length`` symbols in each of ``batch`` rows; return how many there are in all, and the seconds it took.

    Rows of a model of records write one record after the other, and some symbols more.
    """
    if sampler.bundle.records is not None:
        return _time_records(sampler, chain, batch, batch * length)
    started_at = time.perf_counter()
    symbols = _write_rows(sampler, chain, range(batch), length)
    return symbols, time.perf_counter() - started_at


def _time_records(sampler: OpenSampler, chain: Chain, batch: int, least_symbols: int) -> tuple[int, float]:
    """Write records with so many symbols or some more; return what `_time_writing` does."""
    records = sampler.bundle.records
    assert records is not None
    length = max(1, 2 * records.longest)
    options = writing_options(count=MAX_TEXTS, length=length, seed=0, chain=chain.names)
    writing = prepare_writing(sampler, [""], options, KeywordSpelling())
    slots = open_slots(writing, batch)
    requests = itertools.chain.from_iterable(row_requests(writing, keeps_tokens=False) for _ in itertools.count())
    running: list[Slot] = []
    ended_symbols = symbols = 0
    started_at = time.perf_counter()
    while symbols < least_symbols:
        if slots is None:
            symbols += _write_rows(sampler, chain, range(symbols, symbols + batch), length)
            continue
        running += [slots.join(request) for request in itertools.islice(requests, slots.free)]
        slots.advance()
        ended_symbols += sum(slot.text.token_count for slot in running if slot.is_free)
        running = [slot for slot in running if not slot.is_free]
        symbols = ended_symbols + sum(slot.text.token_count for slot in running)
    return symbols, time.perf_counter() - started_at


def _write_rows(sampler: OpenSampler, chain: Chain, streams: range, length: int) -> int:
    """Write a row of at most ``length`` symbols with each stream, side by side; return how many symbols they have."""
    rows = len(streams)
    request = Request(
        primes=[np.empty(0, np.int64)] * rows,
        seeds=[(0, stream) for stream in streams],
        chain=chain,
        params=chain.param_arrays(rows),
        max_tokens=length,
    )
    return sum(int((chunk.tokens >= 0).sum()) for chunk in sampler.generate(request))


def time_first_character(open_again: Callable[[], OpenSampler]) -> tuple[float, float]:
    """Return the median seconds to open the file, and then to write the first symbol."""
    opening_seconds, writing_seconds = [], []
    for _ in range(REPEATS):
        started_at = time.perf_counter()
        sampler = open_again()
        opened_at = time.perf_counter()
        _time_writing(sampler, own_chain(sampler), 1, 1)
        opening_seconds.append(opened_at - started_at)
        writing_seconds.append(time.perf_counter() - opened_at)
    return statistics.median(opening_seconds), statistics.median(writing_seconds)


def time_whole_process(path: Path, verify: bool = True) -> tuple[float, float]:
    """Return the median seconds of a process of ``gen sample`` with 200 characters, and of one that only imports.

    The second one imports NumPy and onnxruntime, which no ``gen sample`` can do without.
    """
    options = ["--length", "200", "--seed", "1", *([] if verify else ["--no-verify"])]
    commands = (
        [sys.executable, "-m", "gentext", "sample", str(path), *options],
        [sys.executable, "-c", "import numpy, onnxruntime"],
    )
    process_seconds: tuple[list[float], list[float]] = ([], [])
    with progress("timing whole processes", len(commands) * (REPEATS + 1)) as bar:
        for turn in range(REPEATS + 1):
            for command, seconds in zip(commands, process_seconds, strict=True):
                started_at = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                if turn:  # the first turn only fills the disk's cache
                    seconds.append(time.perf_counter() - started_at)
                bar.advance()
    return statistics.median(process_seconds[0]), statistics.median(process_seconds[1])


def describe_machine() -> dict[str, Any]:
    """Return the processor, its cores and instructions, and the versions: figures mean little without them."""
    cpu_flags = _cpu_field("flags").split()
    return {
        "cpu": _cpu_field("model name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "instructions": [name for name in CPU_INSTRUCTIONS if name in cpu_flags],
        "python": platform.python_version(),
        **{name: installed_version(name) for name in ("gentext", "numpy", "onnxruntime-gpu", "onnxruntime", "torch")},
    }


def _cpu_field(field: str) -> str:
    """Return a field of the first processor in /proc/cpuinfo, or an empty text."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")
