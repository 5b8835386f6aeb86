"""What a teacher writes, cut into the rows of batches: texts in windows, or records."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gentext.corpus.teacher import Teacher, lesson_seed
from gentext.errors import ConfigError
from gentext.plugins.batchers.records import POOL_BATCHES

#: Texts that a teacher writes side by side: with fewer it writes more slowly.
BLOCK_TEXTS = 64
#: Symbols of a written text at most: a block of such texts has 26 MB.
MAX_TEXT = 100_000
#: Blocks of texts in memory, beside those that a batch needs.
SPARE_BLOCKS = 2

#: x [B, T], y [B, T] and fresh [B], as `gentext.interfaces.Batcher.batch` returns them.
Batch = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]


class WrittenTexts:
    """Rows that each read one written text after another, window by window.

    Texts are numbered, and a text depends on the teacher, the seed and its number alone. At the step s of a run, row r
    of B reads window ``s % windows`` of text ``s // windows * B + r``.
    """

    def __init__(self, teacher: Teacher, rows: int, length: int, windows: int) -> None:
        if windows * length > MAX_TEXT:
            raise ConfigError(
                f"batcher.windows = {windows}: a written text would have {windows * length:,} symbols; expected at "
                f"most {MAX_TEXT:,}, so lower batcher.windows or batcher.length"
            )
        self._teacher, self._rows, self._length, self._windows = teacher, rows, length, windows
        self._stopwatch = _Stopwatch(teacher)
        blocks = -(-rows // BLOCK_TEXTS) + SPARE_BLOCKS
        self._write_block = functools.lru_cache(maxsize=blocks)(self._write_new_block)

    def cut(self, seed: int, run_step: int, rows: range) -> Batch:
        """Return the windows of some rows at a step of the run."""
        group, window = divmod(run_step, self._windows)
        windows = np.empty((len(rows), self._length + 1), np.int64)
        for place, row in enumerate(rows):
            block, text = divmod(group * self._rows + row, BLOCK_TEXTS)
            windows[place] = self._write_block(seed, block)[text, window * self._length :][: self._length + 1]
        return windows[:, :-1], windows[:, 1:], np.full(len(rows), window == 0)

    def measure_writing(self, seed: int) -> float:
        """Return the seconds that the teacher writes for each step of a run, on average."""
        self._write_block(seed, 0)
        return self._stopwatch.seconds * self._rows / (BLOCK_TEXTS * self._windows)

    def _write_new_block(self, seed: int, block: int) -> NDArray[np.int32]:
        """Return [BLOCK_TEXTS, symbols + 1]: the texts of a block, each after the token that begins every text."""
        texts = range(block * BLOCK_TEXTS, (block + 1) * BLOCK_TEXTS)
        symbols = self._windows * self._length
        tokens = self._stopwatch.time(lambda: self._teacher.write(lesson_seed(seed), texts, symbols))
        starts = np.full((BLOCK_TEXTS, 1), self._teacher.start)
        return np.concatenate([starts, tokens], axis=1).astype(np.int32)


class WrittenRecords:
    """Rows that each read one written record at each step, beside others of like length.

    The teacher writes the records of some steps together, which are sorted by length, cut into batches, and these read
    in random order, as the batcher `records` does it. A record has ``length`` symbols at most; of a longer one the
    beginning is read, which has no end then.
    """

    def __init__(self, teacher: Teacher, rows: int, length: int) -> None:
        self._teacher, self._rows, self._length = teacher, rows, length
        self._stopwatch = _Stopwatch(teacher)
        self._write_pool = functools.lru_cache(maxsize=SPARE_BLOCKS)(self._write_new_pool)

    def cut(self, seed: int, run_step: int, rows: range) -> Batch:
        """Return the records of some rows at a step of the run."""
        pool, step = divmod(run_step, POOL_BATCHES)
        tokens = self._write_pool(seed, pool)[step][rows.start : rows.stop].astype(np.int64)
        targets = tokens[:, : max(1, int((tokens >= 0).sum(axis=1).max(initial=0)))]
        inputs = np.full_like(targets, self._teacher.start)
        inputs[:, 1:] = np.where(targets[:, 1:] >= 0, targets[:, :-1], self._teacher.start)
        return inputs, targets, np.ones(len(rows), np.bool_)

    def measure_writing(self, seed: int) -> float:
        """Return the seconds that the teacher writes for each step of a run, on average."""
        self._write_pool(seed, 0)
        return self._stopwatch.seconds / POOL_BATCHES

    def _write_new_pool(self, seed: int, pool: int) -> NDArray[np.int32]:
        """Return [POOL_BATCHES, rows, length]: the records of a batch at each step; -1 behind the end of a record."""
        records = range(pool * POOL_BATCHES * self._rows, (pool + 1) * POOL_BATCHES * self._rows)
        blocks = [records[begin : begin + BLOCK_TEXTS] for begin in range(0, len(records), BLOCK_TEXTS)]
        tokens = self._stopwatch.time(
            lambda: np.concatenate([self._teacher.write(lesson_seed(seed), block, self._length) for block in blocks])
        )
        order = np.argsort((tokens >= 0).sum(axis=1), kind="stable").reshape(POOL_BATCHES, self._rows)
        steps = np.random.default_rng([seed, pool]).permutation(POOL_BATCHES)
        return tokens[order[steps]].astype(np.int32)


class _Stopwatch:
    """Measures how long a teacher writes."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.seconds = 0.0
        """How long it wrote the last time."""

    def time(self, write: Callable[[], NDArray[np.int64]]) -> NDArray[np.int64]:
        """Return what a function writes, and remember how long it took without opening the file."""
        self._teacher.sampler  # noqa: B018
        began_at = time.perf_counter()
        tokens = write()
        self.seconds = time.perf_counter() - began_at
        return tokens
