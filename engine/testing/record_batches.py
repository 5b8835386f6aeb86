"""The check for batchers that cut records: each record as often as it counts, whole, and from a fresh state."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.errors import GenError, reason
from gentext.interfaces import Batcher, World
from gentext.testing.rules import create, freeze, require
from gentext.token_corpus import TokenCorpus

#: Records of the corpus, and symbols of the longest: with few rows and short batches it takes some of them.
RECORDS, LONGEST = 37, 50
#: The token that stands between records.
BOUNDARY = 9


def check_record_batches(name: str, cls: Callable[[Any, TokenCorpus, World], Batcher], config: Any, seed: int) -> None:
    """Check the rules for batches of records; AssertionError names the first that is broken."""
    random = np.random.default_rng(seed)
    records = [random.integers(0, BOUNDARY, length) for length in random.integers(0, LONGEST, RECORDS)]
    tokens = freeze(np.concatenate([np.append(record, BOUNDARY) for record in records]).astype(np.uint8))
    corpus = TokenCorpus.of_records(tokens, BOUNDARY, random.integers(1, 3, RECORDS))
    batcher: Batcher = create(cls, config, corpus, World())
    symbols = sum(len(text) for text in (_expected_texts(corpus)).elements())
    require(
        batcher.symbols_per_epoch == symbols,
        f"{name}: symbols_per_epoch is {batcher.symbols_per_epoch!r}; the records and their ends have {symbols}",
    )
    epochs = [_read_texts(name, [batcher], seed, epoch) for epoch in range(2)]
    for epoch, texts in enumerate(epochs):
        require(
            collections.Counter(texts) == _expected_texts(corpus),
            f"{name}: epoch {epoch} does not read each record as many times as it counts, with the boundary at its end",
        )
    repeated = _read_texts(name, [create(cls, config, corpus, World())], seed, 0)
    require(
        epochs[0] == repeated, f"{name}: a new batcher gives other batches; they must depend on their arguments alone"
    )
    _check_rank_records(name, cls, config, corpus, seed)


def _expected_texts(corpus: TokenCorpus) -> collections.Counter[tuple[int, ...]]:
    """Return the targets of each record, and how many times it is read in an epoch."""
    assert corpus.offsets is not None and corpus.repeats is not None
    counter: collections.Counter[tuple[int, ...]] = collections.Counter()
    for index, count in enumerate(corpus.repeats.tolist()):
        counter[tuple(corpus.tokens[corpus.offsets[index] : corpus.offsets[index + 1]].tolist())] += count
    return counter


def _read_texts(name: str, batchers: list[Batcher], seed: int, epoch: int) -> list[tuple[int, ...]]:
    """Return the targets of each record of an epoch, in the order in which they end; one batcher for each rank."""
    texts: list[tuple[int, ...]] = []
    for rank, batcher in enumerate(batchers):
        open_texts: list[list[int]] = []
        for step in range(batcher.steps_per_epoch):
            x, y, fresh = batcher.batch(seed, epoch, step, rank)
            open_texts = open_texts or [[] for _ in x]
            _check_batch(name, step, x, y, fresh, batcher.length)
            for row, targets in enumerate(y):
                if fresh[row]:
                    open_texts[row] = []
                counted = targets[targets >= 0].tolist()
                previous = open_texts[row][-1] if open_texts[row] else BOUNDARY
                require(
                    x[row, : len(counted)].tolist() == [previous, *counted][: len(counted)],
                    f"{name}: row {row} at step {step} reads {x[row, : len(counted)].tolist()[:8]}; expected the "
                    f"boundary before a record, and behind it the symbol before each target",
                )
                open_texts[row] += counted
                if counted and counted[-1] == BOUNDARY:
                    texts.append(tuple(open_texts[row]))
                    open_texts[row] = []
    return texts


def _check_batch(
    name: str, step: int, x: NDArray[np.int64], y: NDArray[np.int64], fresh: NDArray[np.bool_], length: int
) -> None:
    """Check shapes, types and padding of a batch."""
    is_batch = (
        x.ndim == 2
        and x.shape == y.shape
        and 1 <= x.shape[1] <= length
        and fresh.shape == (len(x),)
        and [str(array.dtype) for array in (x, y, fresh)] == ["int64", "int64", "bool"]
    )
    require(
        is_batch,
        f"{name}: step {step} has x {x.dtype} {x.shape}, y {y.dtype} {y.shape} and fresh {fresh.dtype} {fresh.shape}; "
        f"expected int64 [B, T] twice, T at most {length}, and bool [B]",
    )
    is_padded_behind = bool(((y[:, :-1] >= 0) | (y[:, 1:] < 0)).all())
    require(is_padded_behind, f"{name}: y of step {step} has a target behind a position without one")
    require(bool((x >= 0).all()), f"{name}: x of step {step} has an input below 0; pad with the boundary")


def _check_rank_records(
    name: str, cls: Callable[[Any, TokenCorpus, World], Batcher], config: Any, corpus: TokenCorpus, seed: int
) -> None:
    """Two processes must read all records between them."""
    try:
        batchers = [cls(config, corpus, World(rank, 2)) for rank in range(2)]
    except GenError as error:  # for a number of rows that two cannot share
        is_odd = create(cls, config, corpus, World()).rows % 2
        require(bool(is_odd), f"{name}: two processes cannot share its rows ({reason(error)})")
        return
    texts = collections.Counter(_read_texts(name, batchers, seed, 0))
    require(texts == _expected_texts(corpus), f"{name}: two processes together do not read each record as it counts")
