"""The batcher written: text that a teacher writes while the student learns from it, so that none is read twice."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import msgspec
import numpy as np

from gentext.config import Positive
from gentext.corpus.taught_corpus import TaughtCorpus, require_teacher
from gentext.errors import ConfigError
from gentext.interfaces import World
from gentext.plugins.batchers.records import RecordBatcher, RecordsConfig
from gentext.plugins.batchers.stream import StreamBatcher, StreamConfig, check_shares
from gentext.plugins.distill.written import Batch, WrittenRecords, WrittenTexts
from gentext.token_corpus import TokenCorpus


@dataclasses.dataclass(frozen=True)
class WrittenConfig(StreamConfig):
    """Options of the batcher ``written``."""

    windows: Positive = 20
    """Windows of a written text; after so many, each row goes on with another text. Records have none."""
    real: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """Share of the rows that read the text that the teacher has learned from; it must still be there."""


class WrittenBatcher:
    """Rows that read what a teacher writes, and rows that read what the teacher itself has learned from.

    What row r reads at a step follows from the teacher, the seed and the number of the step in the whole run: see
    `WrittenTexts` and `WrittenRecords`. So each batch is a function of seed, epoch and step, nothing is read twice, and
    a run that is resumed writes again what it needs: nothing is stored. The first rows read the teacher's own corpus,
    as the batchers ``stream`` and ``records`` cut it, again and again.

    An epoch reads about as many symbols as that corpus has.
    """

    Config = WrittenConfig
    reads_records = True

    def __init__(self, config: WrittenConfig, corpus: TokenCorpus, world: World = World()) -> None:  # noqa: B008
        teacher, taught_corpus = require_teacher(corpus, "batcher.name = written")
        check_shares("batcher.batch", config.batch, world)
        self.rows, self.length = config.batch, config.length
        self._local_rows = config.batch // world.size
        self._boundary = corpus.boundary
        self.steps_per_epoch, self.symbols_per_epoch = _measure_epoch(config, corpus)
        #: Rows that read the teacher's own corpus: the first ones.
        self._real_rows = round(config.real * config.batch)
        if self._real_rows and taught_corpus.is_written:
            raise ConfigError(
                f"batcher.real = {config.real:g}: the text that {teacher.run.path} has learned from is not there "
                f"any more; put it back, or take 0"
            )
        self._real = _create_real(self._real_rows, config, taught_corpus)
        rows = self.rows - self._real_rows
        self._written = (
            WrittenRecords(teacher, rows, config.length)
            if corpus.is_records
            else WrittenTexts(teacher, rows, config.length, config.windows)
        )

    def batch(self, seed: int, epoch: int, step: int, rank: int = 0) -> Batch:
        """Return x [B, T], y [B, T], fresh [B] of one step of an epoch, for one rank's rows."""
        run_step = epoch * self.steps_per_epoch + step
        begin, end = rank * self._local_rows, (rank + 1) * self._local_rows
        parts = []
        if self._real is not None and begin < self._real_rows:
            x, y, fresh = self._real.batch(seed, *divmod(run_step, self._real.steps_per_epoch))
            parts.append((x[begin:end], y[begin:end], fresh[begin:end]))
        if end > self._real_rows:
            rows = range(max(begin - self._real_rows, 0), end - self._real_rows)
            parts.append(self._written.cut(seed, run_step, rows))
        width = max(y.shape[1] for _, y, _ in parts)
        pads = [((0, 0), (0, width - y.shape[1])) for _, y, _ in parts]
        return (
            np.concatenate(
                [
                    np.pad(x, pad, constant_values=self._boundary or 0)
                    for (x, _, _), pad in zip(parts, pads, strict=True)
                ]
            ),
            np.concatenate([np.pad(y, pad, constant_values=-1) for (_, y, _), pad in zip(parts, pads, strict=True)]),
            np.concatenate([fresh for _, _, fresh in parts]),
        )

    def measure_writing(self, seed: int) -> float:
        """Return the seconds that the teacher writes for each step of a run, on average."""
        return self._written.measure_writing(seed) if self._real_rows < self.rows else 0.0


def _measure_epoch(config: WrittenConfig, corpus: TokenCorpus) -> tuple[int, int]:
    """Return the steps of an epoch and its symbols; of records, on average.

    Raises ConfigError for batches that are too large, before any memory is taken.
    """
    symbols_per_row = corpus.symbols_per_record if corpus.is_records else config.length
    symbols_per_step = config.batch * symbols_per_row
    if symbols_per_step > corpus.symbols:
        raise ConfigError(
            f"batcher.batch = {config.batch}, batcher.length = {config.length}: a batch would have "
            f"{symbols_per_step:,.0f} symbols, and a pass has {corpus.symbols:,}; lower one of them"
        )
    steps = int(corpus.symbols / symbols_per_step)
    return steps, round(steps * symbols_per_step)


def _create_real(rows: int, config: WrittenConfig, corpus: TaughtCorpus) -> StreamBatcher | RecordBatcher | None:
    """Return the batcher of the rows that read the teacher's own corpus; None without any."""
    if not rows:
        return None
    if corpus.is_records:
        return RecordBatcher(RecordsConfig(rows, config.length), corpus)
    return StreamBatcher(StreamConfig(rows, config.length, config.offset), corpus)
