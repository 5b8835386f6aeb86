"""The batcher written: text that a teacher writes while the student learns from it, so that none is read twice."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gentext.config import Positive
from gentext.errors import ConfigError
from gentext.interfaces import World
from gentext.plugins.batchers.stream import StreamBatcher, StreamConfig, check_shares
from gentext.teacher import lesson_seed, require_teacher
from gentext.token_corpus import TokenCorpus

#: Texts that a teacher writes side by side: with fewer it writes more slowly.
BLOCK_TEXTS = 64
#: Symbols of a written text at most: a block of such texts has 26 MB.
MAX_TEXT = 100_000
#: Blocks of texts in memory, beside those that a batch needs.
SPARE_BLOCKS = 2


@dataclasses.dataclass(frozen=True)
class WrittenConfig(StreamConfig):
    """Options of the batcher ``written``."""

    windows: Positive = 20
    """Windows of a written text; after so many, each row goes on with another text."""
    real: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """Share of the rows that read the text that the teacher has learned from; it must still be there."""


class WrittenBatcher:
    """Rows that each read one written text after another, and rows that read the teacher's own text.

    Texts are numbered, and a text depends on the teacher, the run's seed and its number alone. At the step s of the
    whole run, row r of B reads window ``s % windows`` of text ``s // windows * B + r``. So each batch is a function of
    seed, epoch and step, no text is read twice, and a run that is resumed writes again what it needs: nothing is
    stored. The first rows read the teacher's own text, as the batcher ``stream`` cuts it, again and again.

    An epoch reads about as many symbols as the teacher's text has.
    """

    Config = WrittenConfig

    def __init__(self, config: WrittenConfig, corpus: TokenCorpus, world: World = World()) -> None:  # noqa: B008
        self.teacher, taught_corpus = require_teacher(corpus, "batcher.name = written")
        check_shares("batcher.batch", config.batch, world)
        self.rows, self.length = config.batch, config.length
        self._windows = config.windows
        self._local_rows = config.batch // world.size
        self.steps_per_epoch = corpus.symbols // (self.rows * self.length)
        self._check_sizes(corpus.symbols)
        self.symbols_per_epoch = self.steps_per_epoch * self.rows * self.length
        #: Rows that read the teacher's own text: the first ones.
        self._real_rows = round(config.real * config.batch)
        if self._real_rows and taught_corpus.is_written:
            raise ConfigError(
                f"batcher.real = {config.real:g}: the text that {self.teacher.run.path} has learned from is not there "
                f"any more; put it back, or take 0"
            )
        if self._real_rows:
            self._real = StreamBatcher(StreamConfig(self._real_rows, config.length, config.offset), corpus)
        blocks = -(-self.rows // BLOCK_TEXTS) + SPARE_BLOCKS
        self._write_block = functools.lru_cache(maxsize=blocks)(self._write_new_block)
        #: How long the teacher wrote a block, the last time.
        self._block_seconds = 0.0

    def batch(
        self, seed: int, epoch: int, step: int, rank: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return x [B, T], y [B, T], fresh [B] of one step of an epoch, for one rank's rows."""
        run_step = epoch * self.steps_per_epoch + step
        begin, end = rank * self._local_rows, (rank + 1) * self._local_rows
        parts = [self._cut_written(seed, run_step, range(max(begin, self._real_rows), end))]
        if begin < self._real_rows:
            x, y, fresh = self._real.batch(seed, *divmod(run_step, self._real.steps_per_epoch))
            parts.insert(0, (x[begin:end], y[begin:end], fresh[begin:end]))
        x, y, fresh = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return x, y, fresh

    def _check_sizes(self, symbols: int) -> None:
        """Raise ConfigError for batches or texts that are too large, before any memory is taken."""
        if self.steps_per_epoch < 1:
            raise ConfigError(
                f"batcher.batch = {self.rows}, batcher.length = {self.length}: a batch would have "
                f"{self.rows * self.length:,} symbols, and a pass has {symbols:,}; lower one of them"
            )
        if self._windows * self.length > MAX_TEXT:
            raise ConfigError(
                f"batcher.windows = {self._windows}: a written text would have {self._windows * self.length:,} "
                f"symbols; expected at most {MAX_TEXT:,}, so lower batcher.windows or batcher.length"
            )

    def measure_writing(self, seed: int) -> float:
        """Return the seconds that the teacher writes for each step of a run, on average."""
        written_rows = self.rows - self._real_rows
        if not written_rows:
            return 0.0
        self._write_block(seed, 0)
        return self._block_seconds * written_rows / (BLOCK_TEXTS * self._windows)

    def _cut_written(
        self, seed: int, run_step: int, rows: range
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return x, y and fresh of rows that read written texts."""
        group, window = divmod(run_step, self._windows)
        first_text = group * (self.rows - self._real_rows) - self._real_rows
        windows = np.empty((len(rows), self.length + 1), np.int64)
        for place, row in enumerate(rows):
            block, text = divmod(first_text + row, BLOCK_TEXTS)
            windows[place] = self._write_block(seed, block)[text, window * self.length :][: self.length + 1]
        return windows[:, :-1], windows[:, 1:], np.full(len(rows), window == 0)

    def _write_new_block(self, seed: int, block: int) -> NDArray[np.integer[Any]]:
        """Return [BLOCK_TEXTS, symbols + 1]: the texts of a block, each after the token that begins every text."""
        self.teacher.sampler  # noqa: B018  opened before the clock begins
        began_at = time.perf_counter()
        texts = range(block * BLOCK_TEXTS, (block + 1) * BLOCK_TEXTS)
        tokens = self.teacher.write(lesson_seed(seed), texts, self._windows * self.length)
        self._block_seconds = time.perf_counter() - began_at
        starts = np.full((BLOCK_TEXTS, 1), self.teacher.start)
        return np.concatenate([starts, tokens], axis=1).astype(np.int32)  # smaller in memory
