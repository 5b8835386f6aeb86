"""Compares precisions of a generator: their losses on the held-out text, and their speed on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gentext import bench
from gentext.compiled import next_feeds, start_states
from gentext.folders import temporary_folder
from gentext.opening import open_exported
from gentext.plugins.samplers.session import GeneratorSession, open_file
from gentext.run import GENERATOR_FILE

#: Of a generator: the precisions that are fast on a CPU, and those that are meant for a GPU.
PRECISIONS, CUDA_PRECISIONS = ("fp32", "int8"), ("fp16",)
#: Symbols that are measured at most, and the number below which the figure is marked as noisy.
MAX_SYMBOLS, NOISY_BELOW_SYMBOLS = 100_000, 20_000
#: Streams that the text is read as, and positions of one call.
STREAM_COUNT, POSITIONS_PER_CALL = 64, 256


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


# -- what a precision costs --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class LossReport:
    """The loss of a generator in nats a symbol, and that of the same generator in fp32."""

    loss: float
    reference_loss: float
    symbols: int

    @property
    def cost(self) -> float:
        return self.loss - self.reference_loss

    @property
    def is_noisy(self) -> bool:
        return self.symbols < NOISY_BELOW_SYMBOLS

    def card(self) -> dict[str, Any]:
        """Return the entries for the card of the generator's file."""
        return {
            "precision_loss": round(self.cost, 6),
            "precision_symbols": self.symbols,
            "precision_noisy": self.is_noisy,
        }

    def __str__(self) -> str:
        warning = ", noisy: few symbols" if self.is_noisy else ""
        return f"{self.cost:+.4f} nats a symbol against fp32 over {self.symbols:,} held-out symbols{warning}"


def compare_losses(lowered_bytes: bytes, reference_bytes: bytes, tokens: NDArray[np.int64]) -> LossReport:
    """Measure a generator file and the same generator in fp32 on the ids of a text, each by its own arithmetic."""
    tokens = tokens[:MAX_SYMBOLS]
    reference_loss = _mean_loss(reference_bytes, tokens)
    return LossReport(_mean_loss(lowered_bytes, tokens), reference_loss, len(tokens))


def _mean_loss(generator_bytes: bytes, tokens: NDArray[np.int64]) -> float:
    """Return a generator's nats a symbol over a text that is read as parallel streams, all symbols forced."""
    session = _open_generator(generator_bytes)
    rows = max(1, min(STREAM_COUNT, len(tokens) // POSITIONS_PER_CALL))
    streams = tokens[: len(tokens) // rows * rows].reshape(rows, -1).T
    feeds = start_states(session.signature, rows)
    feeds |= {"token": np.zeros(rows, np.int64), "fresh": np.ones(rows, np.bool_)}
    total_loss = 0.0
    for begin in range(0, len(streams), POSITIONS_PER_CALL):
        forced = np.ascontiguousarray(streams[begin : begin + POSITIONS_PER_CALL])
        noise = np.zeros((*forced.shape, session.signature.columns), np.float32)
        results = session.call(feeds | {"forced": forced, "noise": noise})
        total_loss -= float(results["logprobs"].sum(dtype=np.float64))
        feeds = next_feeds(session.signature, results)
    return total_loss / streams.size


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
