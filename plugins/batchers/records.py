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

#: Batches whose records are sorted together: with fewer there is more padding, with more a batch has fewer lengths.
POOL_BATCHES = 16


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

    The records of an epoch are shuffled and cut into pools of ``POOL_BATCHES`` batches. Each pool is sorted by length,
    and cut into groups of as many records as a batch has rows, which are read in random order. So a batch has hardly
    any padding, and a pool, which is read in a row, has records of all lengths. Sorting all records instead would give
    batches of a single length: each would teach where records of its length end, and undo what the others taught.

    Records that are longer than a batch are all sorted together, and their groups are read at random places among
    the others. So the number of steps is the same in each epoch.
    """

    Config = RecordsConfig
    reads_records = True

    def __init__(self, config: RecordsConfig, corpus: TokenCorpus, world: World = World()) -> None:  # noqa: B008
        if not corpus.is_records:
            raise ConfigError(
                "batcher.name = records: the corpus is one text; expected the option records, which says how to cut it"
            )
        if not corpus.records:
            raise CorpusError("no records to learn from")
        check_shares("batcher.batch", config.batch, world)
        self.rows, self.length = config.batch, config.length
        self.symbols_per_epoch = corpus.symbols
        self._corpus = corpus
        self._local_rows = config.batch // world.size
        repeats = np.ones(len(corpus.lengths), np.int64) if corpus.repeats is None else corpus.repeats
        #: The records of an epoch, each as often as it counts: those that fit into a batch, and the longer ones.
        self._short, self._long = (
            np.repeat(np.flatnonzero(chosen), repeats[chosen])
            for chosen in (corpus.lengths <= self.length, corpus.lengths > self.length)
        )
        long_steps = self._count_steps(self._split_groups(self._sort(self._long)))
        self.steps_per_epoch = -(-len(self._short) // self.rows) + int(long_steps.sum())
        self._plan_epoch = functools.lru_cache(maxsize=2)(self._make_plan)

    @property
    def padding(self) -> float:
        """Share of the positions of the first epoch that have no symbol; other epochs hardly differ."""
        positions = int(self._longest(self._plan_epoch(0, 0).groups).sum()) * self.rows
        return 1 - self.symbols_per_epoch / positions

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
        pool_size = POOL_BATCHES * self.rows
        pools = np.split(random.permutation(self._short), range(pool_size, len(self._short), pool_size))
        short_groups = self._split_groups(np.concatenate([self._sort(pool) for pool in pools]))
        long_groups = self._split_groups(self._sort(random.permutation(self._long)))
        # Pool k is read between the times k and k + 1.
        short_times = np.arange(len(short_groups)) // POOL_BATCHES + random.random(len(short_groups))
        long_times = random.random(len(long_groups)) * len(pools)
        order = np.argsort(np.concatenate([short_times, long_times]))
        groups = np.concatenate([short_groups, long_groups])[order]
        steps = self._count_steps(groups)
        return _EpochPlan(groups, np.cumsum(steps) - steps)

    def _split_groups(self, records: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return int64 [G, rows]: the records in groups of as many as a batch has rows; -1: no record."""
        groups = np.full((-(-len(records) // self.rows), self.rows), -1)
        groups.reshape(-1)[: len(records)] = records
        return groups

    def _sort(self, records: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the records by length; those of equal length stay in their order."""
        return records[np.argsort(self._corpus.lengths[records], kind="stable")]

    def _count_steps(self, groups: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return int64 [G]: the steps of each group."""
        return -(-self._longest(groups) // self.length)

    def _longest(self, groups: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return int64 [G]: the symbols of the longest record of each group."""
        lengths: NDArray[np.int64] = np.where(groups >= 0, self._corpus.lengths[groups], 0).max(axis=1)
        return lengths
