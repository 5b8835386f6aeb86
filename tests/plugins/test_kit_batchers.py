"""The check of gentext.testing for batchers finds each planted fault, and names its rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from planted import Fault, name_faults, plant

from gentext.errors import ConfigError
from gentext.interfaces import World
from gentext.plugins.batchers.stream import StreamBatcher, StreamConfig
from gentext.testing import check_batcher
from gentext.token_corpus import TokenCorpus


class Batcher(StreamBatcher):
    """The built-in one, for planted faults: `change` gets the batch and the arguments that it was made for."""

    def batch(self, seed: int, epoch: int, step: int, rank: int = 0) -> Any:
        x, y, fresh = super().batch(seed, epoch, step, rank)
        return self.change(x.copy(), y.copy(), fresh, self._tokens, step)

    def change(self, x: Any, y: Any, fresh: Any, tokens: Any, step: int) -> Any:
        return x, y, fresh


class SwapsSymbols(Batcher):
    def change(self, x: Any, y: Any, fresh: Any, tokens: Any, step: int) -> Any:
        x[0, :2], y[0, :2] = x[0, 1::-1], y[0, 1::-1]
        return x, y, fresh


class WritesIntoTheText(Batcher):
    def change(self, x: Any, y: Any, fresh: Any, tokens: Any, step: int) -> Any:
        tokens[0] = 0
        return x, y, fresh


class RepeatsNoStep(StreamBatcher):
    """Gives the next step where one of the second epoch is asked for twice."""

    def __init__(self, config: StreamConfig, corpus: TokenCorpus, world: World) -> None:
        super().__init__(config, corpus, world)
        self.finished: set[int] = set()

    def batch(self, seed: int, epoch: int, step: int, rank: int = 0) -> Any:
        if epoch == 1 and step in self.finished:
            step = (step + 1) % self.steps_per_epoch
        elif epoch == 1:
            self.finished.add(step)
        return super().batch(seed, epoch, step, rank)


class ReusesItsBuffer(StreamBatcher):
    buffer: Any = None

    def batch(self, seed: int, epoch: int, step: int, rank: int = 0) -> Any:
        x, y, fresh = super().batch(seed, epoch, step, rank)
        if self.buffer is None:
            self.buffer = np.empty_like(x)
        self.buffer[:] = x
        return self.buffer, y, fresh


class SharesUnevenly(StreamBatcher):
    def batch(self, seed: int, epoch: int, step: int, rank: int = 0) -> Any:
        batch = super().batch(seed, epoch, step, rank)
        return batch if self._local_rows == self.rows or rank else tuple(array[:-1] for array in batch)


class IgnoresItsRank(StreamBatcher):
    def batch(self, seed: int, epoch: int, step: int, rank: int = 0) -> Any:
        return super().batch(seed, epoch, step, 0)


class RefusesToShare(StreamBatcher):
    def __init__(self, config: StreamConfig, corpus: TokenCorpus, world: World) -> None:
        if world.size > 1:
            raise ConfigError("alone")
        super().__init__(config, corpus, world)


class TakesAnyText(StreamBatcher):
    def __init__(self, config: StreamConfig, corpus: TokenCorpus, world: World) -> None:
        super().__init__(config, corpus if corpus.symbols > 1 else TokenCorpus(np.arange(10_000)), world)


class DividesByZero(StreamBatcher):
    def __init__(self, config: StreamConfig, corpus: TokenCorpus, world: World) -> None:
        super().__init__(config, corpus if corpus.symbols > 1 else 1 // 0, world)


def changes(change: Any) -> type[Any]:
    return plant(Batcher, change=lambda self, x, y, fresh, tokens, step: change(x, y, fresh))


BATCHER_FAULTS: list[Fault] = [
    (plant(StreamBatcher, rows=property(lambda self: 4.0, lambda self, rows: None)),
     r"steps_per_epoch is 3125\.0; expected a whole"),
    (changes(lambda x, y, fresh: (x, y)), "expected a tuple of x, y and fresh"),
    (changes(lambda x, y, fresh: (x.astype(np.int32), y, fresh)), r"x of step 0 is int32 \(4, 8\); expected int64"),
    (changes(lambda x, y, fresh: (x, y[:, :-1], fresh)), r"y of step 0 is int64 \(4, 7\); expected int64 \(4, 8\)"),
    (changes(lambda x, y, fresh: (x, y, fresh.astype(int))), r"fresh of step 0 is int64 \(4,\); expected bool"),
    (changes(lambda x, y, fresh: (x, y, list(fresh))), "fresh of step 0 is list"),
    (changes(lambda x, y, fresh: (x + 100_000, y, fresh)), "x of step 0 has ids that are not in the text"),
    (changes(lambda x, y, fresh: (x, x, fresh)), "y at step 0 is not what follows x in the text"),
    (SwapsSymbols, "a row of x at step 0 is no window of the text"),
    (changes(lambda x, y, fresh: (x, y, np.zeros(4, bool))), "not all rows are fresh in the first batch of all"),
    (changes(lambda x, y, fresh: (x[::-1] if not fresh.all() else x, y[::-1] if not fresh.all() else y, fresh)),
     "is not fresh, but begins with the symbol"),
    (WritesIntoTheText, "changes an array in place"),
    (RepeatsNoStep, "it must depend on its arguments alone"),
    (ReusesItsBuffer, "the arrays of step 0 were changed by later calls"),
    (SharesUnevenly, r"x of step 0 of rank 0 of 2 is int64 \(1, 8\); expected int64 \(2, 8\)"),
    (IgnoresItsRank, "two processes read the same rows"),
    (RefusesToShare, "two processes cannot share its rows"),
    (TakesAnyText, "takes a text of one symbol"),
    (DividesByZero, "must raise CorpusError, not ZeroDivisionError"),
]  # fmt: skip


@pytest.mark.parametrize(**name_faults(BATCHER_FAULTS))
def test_fault_of_a_batcher_is_named(cls: type[Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_batcher(cls, StreamConfig(4, 8))


@pytest.mark.parametrize("config", [None, StreamConfig(3, 7), StreamConfig(4, 5, offset=True), StreamConfig(1, 2)])
def test_batcher_of_gentext_passes(config: Any) -> None:
    check_batcher(StreamBatcher, config)
