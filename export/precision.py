"""Compares precisions of a generator: their losses on the held-out text, and their speed on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gentext.console import Bar
from gentext.files.folders import temporary_folder
from gentext.generation.model_calls import first_feeds
from gentext.generation.row_table import RowTable
from gentext.library import bench
from gentext.plugins.samplers.session import GeneratorSession, open_file
from gentext.run import GENERATOR_FILE
from gentext.runs.source import open_exported
from gentext.token_corpus import TokenCorpus

#: Of a generator: the precisions that are fast on a CPU, and those that are meant for a GPU.
PRECISIONS, CUDA_PRECISIONS = ("fp32", "int8"), ("fp16",)
#: How many nats a symbol int8 may cost where it is chosen by its loss, and a precision that the user names.
AUTO_LIMIT, NAMED_LIMIT = 0.002, 0.005
#: Symbols of the held-out text that are measured at most and at least, and the number below which the figure is noisy.
MAX_SYMBOLS, MIN_SYMBOLS, NOISY_BELOW_SYMBOLS = 200_000, 2_000, 20_000
#: Multiplications of all measured symbols at most, about one a parameter and symbol: half a minute of the notebook's
#: network. The bound is one of work, not of time, so that the same text is measured on every machine.
MAX_MULTIPLICATIONS = 800_000_000_000
#: Positions of one call, and records that are read side by side.
POSITIONS_PER_CALL, RECORDS_PER_CALL = 256, 64


class ExportedFile(NamedTuple):
    """The bytes of a file, checked."""

    file_bytes: bytes
    facts: Sequence[str]
    """Descriptions that are shown to the user: precision and chain, then what was measured and checked."""


@dataclasses.dataclass(frozen=True)
class BuiltGenerator:
    """A generator in one precision."""

    precision: str
    files: Mapping[str, ExportedFile]
    """By file name."""
    cost: float = 0.0
    """How many nats a symbol its loss is above that of fp32."""
    report: LossReport | None = None
    """What was measured; None where nothing was."""


# -- what a precision costs --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class LossReport:
    """The loss of a generator in nats a symbol, and that of the same generator in fp32."""

    precision: str
    loss: float
    fp32_loss: float
    symbols: int
    """How many symbols of the held-out text were measured, from its beginning."""
    held_out_symbols: int
    """How many it has."""

    @property
    def cost(self) -> float:
        return self.loss - self.fp32_loss

    @property
    def is_noisy(self) -> bool:
        return self.symbols < NOISY_BELOW_SYMBOLS

    def card(self) -> dict[str, Any]:
        """Return the entries for the card of the generator's file."""
        return {
            "precision_losses": {"fp32": round(self.fp32_loss, 6), self.precision: round(self.loss, 6)},
            "precision_symbols": self.symbols,
            "precision_noisy": self.is_noisy,
        }

    def __str__(self) -> str:
        part = ""
        if self.symbols < self.held_out_symbols:
            part = f" over the first {self.symbols:,} of {self.held_out_symbols:,} symbols"
        warning = ", noisy: few symbols" if self.is_noisy else ""
        return f"held out{part} {self.fp32_loss:.4f} (fp32), {self.loss:.4f} ({self.precision}{warning})"


def count_measured_symbols(held_out_symbols: int, parameters: int) -> int:
    """Return how many symbols of a held-out text are measured, from its beginning, with a model of that size."""
    affordable_symbols = max(MIN_SYMBOLS, MAX_MULTIPLICATIONS // max(1, parameters))
    return min(held_out_symbols, MAX_SYMBOLS, affordable_symbols)


def measure_loss(generator_bytes: bytes, corpus: TokenCorpus, bar: Bar) -> float:
    """Return a generator's nats a symbol over a corpus: a text is read as one stream, each record from a fresh state.

    All symbols are forced, so every loss comes from the arithmetic of the file. The figure is that of ``gen eval``.
    """
    session = _open_generator(generator_bytes)
    if not corpus.is_records:
        return _measure_rows(session, corpus.tokens[None].astype(np.int64), bar) / corpus.symbols
    by_length = np.argsort(corpus.lengths, kind="stable")
    batches = [by_length[first : first + RECORDS_PER_CALL] for first in range(0, len(by_length), RECORDS_PER_CALL)]
    longest = int(corpus.lengths.max())
    return sum(_measure_rows(session, corpus.cut(batch, 0, longest)[1], bar) for batch in batches) / corpus.symbols


def _measure_rows(session: GeneratorSession, targets: NDArray[np.int64], bar: Bar) -> float:
    """Return the summed loss in nats at targets [N, T], -1 where there is none, each row from the start symbol."""
    rows, length = targets.shape
    table = RowTable(session, session.bundle)
    table.add(first_feeds(session.signature, rows), np.zeros((rows, 2), np.uint64), np.full(rows, -length))
    total_loss = 0.0
    for begin in range(0, length, POSITIONS_PER_CALL):
        part = np.ascontiguousarray(targets[:, begin : begin + POSITIONS_PER_CALL].T)
        read = table.call(np.maximum(part, 0))  # behind the end of a record anything may be forced
        has_target = part >= 0
        total_loss -= float(read.logprobs[has_target].sum(dtype=np.float64))
        bar.advance(int(has_target.sum()))
    return total_loss


def _open_generator(generator_bytes: bytes) -> GeneratorSession:
    with temporary_folder() as folder:
        path = Path(folder) / GENERATOR_FILE
        path.write_bytes(generator_bytes)
        session = open_file(path, "cpu")
    assert isinstance(session, GeneratorSession)
    return session


# -- which precision is fastest ----------------------------------------------------------------


class _Measurement(NamedTuple):
    """How fast a generator writes."""

    generator: BuiltGenerator
    threads: int
    rate: float
    """Characters a second."""


def fastest_precision(
    build: Callable[[str], BuiltGenerator], precisions: Sequence[str], limit: float
) -> tuple[BuiltGenerator, list[str]]:
    """Build each precision; return the fastest that costs at most ``limit`` nats a symbol, and a table of all.

    One row is measured, at the number of threads that suits it, on the device that sampling would take.
    fp32 comes first, and costs nothing by definition, so there is always one to return.
    """
    measurements: list[_Measurement] = []
    for precision in precisions:
        generator = build(precision)
        # A precision to which the model cannot be converted becomes fp32, which is measured already.
        if all(generator.precision != measurement.generator.precision for measurement in measurements):
            measurements.append(_Measurement(generator, *_measure_rate(generator)))
    affordable = [measurement for measurement in measurements if measurement.generator.cost <= limit]
    fastest = max(affordable, key=lambda measurement: measurement.rate).generator
    return fastest, _format_table(measurements, fastest, limit)


def _measure_rate(generator: BuiltGenerator) -> tuple[int, float]:
    """Return the best number of threads, and the characters a second with it."""
    with temporary_folder() as folder:
        for name, file in generator.files.items():
            (Path(folder) / name).write_bytes(file.file_bytes)
        return bench.fastest_threads(lambda threads: open_exported(Path(folder) / GENERATOR_FILE, "auto", threads))


def _format_table(measurements: Sequence[_Measurement], fastest: BuiltGenerator, limit: float) -> list[str]:
    lines = [f"{'precision':<10}{'threads':>8}{'characters a second':>21}{'nats a symbol':>15}{'MB':>7}"]
    for generator, threads, rate in measurements:
        megabytes = len(generator.files[GENERATOR_FILE].file_bytes) / 1e6
        note = ""
        if generator is fastest:
            note = "  taken"
        elif generator.cost > limit:
            note = "  above the limit"
        lines.append(
            f"{generator.precision:<10}{threads:>8}{rate:>21,.0f}{generator.cost:>+15.4f}{megabytes:>7.1f}{note}"
        )
    return lines
