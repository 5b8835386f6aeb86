"""The precision that is fastest on this machine, found by making each and measuring it."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from gentext import bench
from gentext.opening import open_exported
from gentext.run import GENERATOR

#: By name: the bytes of each file, and what was found out about it.
Files = dict[str, tuple[bytes, list[str]]]


@dataclasses.dataclass(frozen=True)
class Built:
    """The files of a generator in one precision, checked."""

    precision: str
    files: Files
    cost: float = 0.0
    """Nats a symbol more than in fp32."""


def fastest_precision(
    build: Callable[[str], Built], precisions: Sequence[str], limit: float
) -> tuple[Built, list[str]]:
    """Build each precision and return the fastest that costs at most ``limit``, and a table for people.

    Measured is one row, at the number of threads that suits it, on the device that sampling would take.
    fp32 comes first, and costs nothing by definition, so there always is one.
    """
    found: list[tuple[float, int, Built]] = []
    for precision in precisions:
        built = build(precision)
        if built.precision not in [one.precision for _, _, one in found]:  # one that it cannot have falls back
            threads, rate = _measure(built)
            found.append((rate, threads, built))
    taken = max((one for one in found if one[2].cost <= limit), key=lambda one: one[0])[2]
    lines = [f"{'precision':<10}{'threads':>8}{'characters a second':>21}{'nats a symbol':>15}{'MB':>7}"]
    for rate, threads, built in found:
        size = len(built.files[GENERATOR][0]) / 1e6
        note = "  taken" if built is taken else "  above the limit" if built.cost > limit else ""
        lines.append(f"{built.precision:<10}{threads:>8}{rate:>21,.0f}{built.cost:>+15.4f}{size:>7.1f}{note}")
    return taken, lines


def _measure(built: Built) -> tuple[int, float]:
    with tempfile.TemporaryDirectory() as folder:
        for name, (data, _) in built.files.items():
            (Path(folder) / name).write_bytes(data)
        return bench.fastest_threads(lambda threads: open_exported(Path(folder) / GENERATOR, "auto", threads))
