"""How fast a file writes on this machine: medians of several runs, taken in turn."""

from __future__ import annotations

import dataclasses
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gentext.chain import Chain
from gentext.describe import chain_of
from gentext.interfaces import OpenSampler, Request
from gentext.manager import host
from gentext.settings import cores
from gentext.stored import stored_chain

BATCHES = (1, 8, 64, 256)
#: Seconds that each measurement should take.
TARGET = 1.0
REPEATS = 5

Name = TypeVar("Name")

#: What measures a rate once: characters a second.
Try = Callable[[], float]


@dataclasses.dataclass(frozen=True)
class Rate:
    """Characters a second of all rows together: the median, and the slowest and fastest run."""

    median: float
    low: float
    high: float


def in_turn(tries: Mapping[Name, Try], repeats: int) -> dict[Name, list[float]]:
    """Measure each of these once, and again from the first on, ``repeats`` times.

    A machine that others share is fast in one minute and slow in the next. So nothing is measured
    alone, and what is compared stands in the same turn.
    """
    taken: dict[Name, list[float]] = {name: [] for name in tries}
    for _ in range(repeats):
        for name, one in tries.items():
            taken[name].append(one())
    return taken


def summary(taken: list[float]) -> Rate:
    return Rate(statistics.median(taken), min(taken), max(taken))


def ratio(taken: list[float], base: list[float]) -> float:
    """Return the median of the ratios of each turn."""
    return statistics.median(one / other for one, other in zip(taken, base, strict=True))


def chain_for(opened: OpenSampler) -> Chain:
    """Return the chain that the file runs by itself, or its default one."""
    bundle = opened.bundle
    return stored_chain(bundle) if bundle.kind == "generator" else chain_of(bundle, host().registry)


def writing(opened: OpenSampler, batch: int, seconds: float = TARGET) -> Try:
    """Return what writes about so many seconds in ``batch`` rows; find out how much that is, which warms up."""
    chain = chain_for(opened)
    length, taken = 16, 0.0
    while taken < seconds / 4:
        length = min(length * 4, 100_000)
        taken = _write(opened, chain, batch, length)
    chosen = max(16, int(length * seconds / taken))
    return lambda: batch * chosen / _write(opened, chain, batch, chosen)


def fastest_threads(open_with: Callable[[int], OpenSampler], batch: int = 1, seconds: float = 0.1) -> tuple[int, float]:
    """Return the number of threads at which so many rows are written fastest, and their characters a second.

    More threads must win 3 %: on a busy machine they are the first to suffer.
    """
    counts = [1]
    while counts[-1] < cores():
        counts.append(min(2 * counts[-1], cores()))
    taken = in_turn({threads: writing(open_with(threads), batch, seconds) for threads in counts}, REPEATS)
    rates = {threads: statistics.median(one) for threads, one in taken.items()}
    best = max(rates.values())
    return next((threads, found) for threads, found in rates.items() if found * 1.03 >= best)


def _write(opened: OpenSampler, chain: Chain, batch: int, length: int) -> float:
    """Write ``length`` symbols in each row and return the seconds it took."""
    request = Request(
        primes=[np.empty(0, np.int64)] * batch,
        seeds=[(0, row) for row in range(batch)],
        chain=chain,
        params=chain.param_arrays(batch),
        max_tokens=length,
    )
    begin = time.perf_counter()
    for _ in opened.generate(request):
        pass
    return time.perf_counter() - begin


def first_character(open_again: Callable[[], OpenSampler]) -> tuple[float, float]:
    """Return the median seconds to open the file, and from there to the first symbol."""
    opens, firsts = [], []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        opened = open_again()
        middle = time.perf_counter()
        _write(opened, chain_for(opened), 1, 1)
        opens.append(middle - begin)
        firsts.append(time.perf_counter() - middle)
    return statistics.median(opens), statistics.median(firsts)


def whole_process(path: Path) -> tuple[float, float]:
    """Return median seconds of ``gen sample`` with 200 characters, and of importing numpy and onnxruntime."""
    commands = (
        [sys.executable, "-m", "gentext", "sample", str(path), "--length", "200", "--seed", "1"],
        [sys.executable, "-c", "import numpy, onnxruntime"],
    )
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(REPEATS + 1):
        for command, taken in zip(commands, times, strict=True):
            begin = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if turn:  # the first of each warms the disk's cache
                taken.append(time.perf_counter() - begin)
    return statistics.median(times[0]), statistics.median(times[1])


def machine() -> dict[str, Any]:
    """Return what a figure must be read with: processor, cores, versions."""
    flags = _cpu_lines("flags").split()
    return {
        "cpu": _cpu_lines("model name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "instructions": [one for one in ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16") if one in flags],
        "python": platform.python_version(),
        **{name: _version(name) for name in ("gentext", "numpy", "onnxruntime-gpu", "onnxruntime", "torch")},
    }


def _cpu_lines(field: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
