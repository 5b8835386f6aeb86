"""The batcher records: each record from a fresh state, those of like length side by side."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from gentext.config import Positive
from gentext.errors import ConfigError, CorpusError
from gentext.interfaces import World
from gentext.plugins.batchers.stream import check_shares
from gentext.token_corpus import TokenCorpus


@dataclasses.dataclass(frozen=True)
class RecordsConfig:
    """Options of the batcher ``records``."""

    batch: Positive = 64
    """Records that are read side by side: rows of a batch."""
    length: Positive = 256
    """Positions of a batch, at most, over which the gradient flows back. A longer record goes on in the next batch."""


@dataclasses.dataclass(frozen=True)
class _EpochPlan:
    """Which records are read at each step of an epoch."""

    groups: NDArray[np.int64]
    """int64 [G, rows]: the records of each group, which are read side by side, in the order of the epoch; -1: none."""
    first_steps: NDArray[np.int64]
    """int64 [G]: the step at which each group begins."""


class RecordBatcher:
    """Rows are records of like length; a record that is longer than a batch goes on in the same row of the next one.

    The records of an epoch are sorted by length, equal lengths in random order, and cut into groups of as many as a
    batch has rows. The groups are read in random order. Their lengths are the same in each epoch, and so is the number
    of steps.
    """

    Config = RecordsConfig
    reads_records = True

    def __init__(self, config: RecordsConfig, corpus: TokenCorpus, world: World = World()) -> None:  # noqa: B008
        if not corpus.is_records:
            raise ConfigError("batcher.name = records: the corpus is one text; say with --records how to cut it")
        if not corpus.records:
            raise CorpusError("no records to learn from")
        check_shares("batcher.batch", config.batch, world)
        self.rows, self.length = config.batch, config.length
        self.symbols_per_epoch = corpus.symbols
        self._corpus = corpus
        self._local_rows = config.batch // world.size
        lengths = corpus.lengths if corpus.repeats is None else np.repeat(corpus.lengths, corpus.repeats)
        longest = np.maximum.reduceat(np.sort(lengths), np.arange(0, len(lengths), self.rows))
        #: Steps of each group, in the order of lengths.
        self._steps_of_group = -(-longest // self.length)
        self.steps_per_epoch = int(self._steps_of_group.sum())
        #: Positions of all batches of an epoch, padding included.
        self._positions = int(longest.sum()) * self.rows
        self._plan_epoch = functools.lru_cache(maxsize=2)(self._make_plan)

    @property
    def padding(self) -> float:
        """Share of the positions of an epoch that have no symbol."""
        return 1 - self.symbols_per_epoch / self._positions

    def batch(
        self, seed: int, epoch: int, step: int, rank: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return x [B, T], y [B, T], fresh [B] of one step of an epoch, for one rank's rows."""
        plan = self._plan_epoch(seed, epoch)
        group = int(np.searchsorted(plan.first_steps, step, "right")) - 1
        begin = (step - int(plan.first_steps[group])) * self.length
        local = slice(rank * self._local_rows, (rank + 1) * self._local_rows)
        x, y = self._corpus.cut(plan.groups[group, local], begin, begin + self.length)
        return x, y, np.full(self._local_rows, begin == 0)

    def _make_plan(self, seed: int, epoch: int) -> _EpochPlan:
        random = np.random.default_rng([seed, epoch])
        lengths, repeats = self._corpus.lengths, self._corpus.repeats
        records = np.arange(len(lengths)) if repeats is None else np.repeat(np.arange(len(lengths)), repeats)
        records = random.permutation(records)
        records = records[np.argsort(lengths[records], kind="stable")]
        padded = np.full(len(self._steps_of_group) * self.rows, -1)
        padded[: len(records)] = records
        order = random.permutation(len(self._steps_of_group))
        first_steps = np.cumsum(self._steps_of_group[order]) - self._steps_of_group[order]
        return _EpochPlan(padded.reshape(-1, self.rows)[order], first_steps)
