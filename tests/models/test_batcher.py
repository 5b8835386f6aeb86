"""stream: the notebook's batches, and what the notebook loses."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import examples, notebook_batches
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gentext.errors import ConfigError, CorpusError
from gentext.interfaces import World
from gentext.plugins.batchers.stream import StreamBatcher, StreamConfig
from gentext.token_corpus import TokenCorpus

#: Rows, positions of a window, symbols of the text (at least one batch).
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 6)).flatmap(
    lambda shape: st.tuples(*map(st.just, shape), st.integers(shape[0] * shape[1], shape[0] * shape[1] * 7 + 3))
)
Batch = tuple[NDArray[np.int64], NDArray[np.int64]]


def epoch(batcher: StreamBatcher, seed: int = 0, number: int = 0) -> list[Batch]:
    steps = range(batcher.steps_per_epoch)
    return [batcher.batch(seed, number, step)[:2] for step in steps]


@examples(100)
@given(SHAPES)
def test_batches_are_the_notebooks(shape: tuple[int, int, int]) -> None:
    rows, length, count = shape
    tokens = np.arange(count)
    batcher = StreamBatcher(StreamConfig(rows, length), TokenCorpus(tokens))
    ours, theirs = epoch(batcher), list(notebook_batches(tokens, rows, length))
    assert len(ours) == len(theirs) == batcher.steps_per_epoch
    for step, ((x, y), (their_x, their_y)) in enumerate(zip(ours, theirs, strict=True)):
        assert np.array_equal(x, their_x)
        last = step == len(ours) - 1
        true = np.minimum(x + 1, count)
        if count % (rows * length) == 0 and last:
            true[-1, -1] = x[-1, -1] + 1 - len(ours) * length  # nothing follows: the notebook's wrap
        assert np.array_equal(y, true)
        # There the notebook wraps every row to its own beginning; everywhere else it agrees.
        same = y == their_y
        assert same[:, : length - last].all()


@examples(50)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 5))
def test_nothing_is_lost_where_the_text_divides_evenly(rows: int, length: int, steps: int) -> None:
    count = rows * length * steps
    windows = epoch(StreamBatcher(StreamConfig(rows, length), TokenCorpus(np.arange(count))))
    read = np.concatenate([x for x, _ in windows], axis=1)
    assert np.array_equal(read.ravel(), np.arange(count))


@examples(100)
@given(SHAPES, st.integers(0, 2**63 - 1), st.integers(0, 50))
def test_offset_stays_inside_the_text(shape: tuple[int, int, int], seed: int, number: int) -> None:
    rows, length, count = shape
    tokens = np.arange(count)
    batcher = StreamBatcher(StreamConfig(rows, length, offset=True), TokenCorpus(tokens))
    windows = epoch(batcher, seed, number)
    read = np.concatenate([x for x, _ in windows], axis=1)
    moved = int(read[0, 0])
    stride = batcher.steps_per_epoch * length
    assert np.array_equal(read, moved + np.arange(rows * stride).reshape(rows, stride))
    if moved or count > rows * stride:
        assert all(np.array_equal(y, x + 1) for x, y in windows)
        assert max(y.max() for _, y in windows) < count


def test_offset_visits_the_whole_text() -> None:
    batcher = StreamBatcher(StreamConfig(3, 4, offset=True), TokenCorpus(np.arange(53)))
    starts = {int(batcher.batch(5, number, 0)[0][0, 0]) for number in range(300)}
    assert starts == set(range(53 - 3 * 4 * batcher.steps_per_epoch))
    assert batcher.batch(5, 1, 0)[0].tolist() == batcher.batch(5, 1, 0)[0].tolist()


@examples(50)
@given(st.integers(1, 3), st.integers(1, 4), st.booleans(), st.integers(0, 9))
def test_ranks_together_hold_the_batch(local: int, ranks: int, offset: bool, number: int) -> None:
    config = StreamConfig(local * ranks, 3, offset)
    count = config.batch * 3 * 4 + 5
    tokens = np.random.default_rng(0).integers(0, 99, count)
    before = tokens.copy()
    whole_batcher = StreamBatcher(config, TokenCorpus(tokens))
    rank_batchers = [StreamBatcher(config, TokenCorpus(tokens), World(rank, ranks)) for rank in range(ranks)]
    for step in range(whole_batcher.steps_per_epoch):
        expected = whole_batcher.batch(7, number, step)
        of_ranks = [batcher.batch(7, number, step, rank) for rank, batcher in enumerate(rank_batchers)]
        for index, array in enumerate(expected):
            assert np.array_equal(np.concatenate([batch[index] for batch in of_ranks]), array)
        repeated = whole_batcher.batch(7, number, step)
        assert all(np.array_equal(*arrays) for arrays in zip(repeated, expected, strict=True))
        assert (expected[2] == (step == 0)).all()
    assert np.array_equal(tokens, before)
    sizes = (whole_batcher.rows, whole_batcher.steps_per_epoch)
    assert all((batcher.rows, batcher.steps_per_epoch) == sizes for batcher in rank_batchers)


def test_batches_are_int64_whatever_the_text_is_stored_as() -> None:
    tokens = np.full(30, 255, np.uint8)
    x, y, fresh = StreamBatcher(StreamConfig(2, 5), TokenCorpus(tokens)).batch(0, 0, 0)
    assert (x.dtype, y.dtype, fresh.dtype) == (np.int64, np.int64, np.bool_)
    assert x.flags.writeable  # PyTorch warns about arrays that are not


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(CorpusError, match=r"9 symbols, but one batch of 2 x 5 needs 10;.*lower batcher\.batch"):
        StreamBatcher(StreamConfig(2, 5), TokenCorpus(np.arange(9)))
    with pytest.raises(ConfigError, match=r"batcher\.batch = 3: 2 processes cannot share 3 rows evenly; take 2 or 4,"):
        StreamBatcher(StreamConfig(3, 5), TokenCorpus(np.arange(100)), World(0, 2))
