"""records: each record from a fresh state, as often as it counts, with padding that counts for nothing."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

from gentext.errors import ConfigError, CorpusError
from gentext.interfaces import World
from gentext.plugins.batchers.records import RecordBatcher, RecordsConfig
from gentext.testing import check_batcher
from gentext.token_corpus import TokenCorpus

CONFIGS = st.builds(RecordsConfig, st.integers(1, 9), st.integers(1, 60))


@examples(60)
@given(CONFIGS, st.integers(0, 99))
def test_batches_keep_the_rules(config: RecordsConfig, seed: int) -> None:
    check_batcher(RecordBatcher, config, seed)


@examples(60)
@given(CONFIGS, st.lists(st.integers(0, 70), min_size=1, max_size=40), st.integers(0, 1))
def test_ranks_together_hold_the_batch(config: RecordsConfig, lengths: list[int], epoch: int) -> None:
    config = RecordsConfig(2 * config.batch, config.length)
    tokens = np.concatenate([np.append(np.full(length, 5), 7) for length in lengths]).astype(np.uint8)
    corpus = TokenCorpus.of_records(tokens, 7)
    batcher = RecordBatcher(config, corpus)
    halves = [RecordBatcher(config, corpus, World(rank, 2)) for rank in range(2)]
    positions = 0
    for step in range(batcher.steps_per_epoch):
        x, y, fresh = batcher.batch(0, epoch, step)
        positions += y.size
        parts = [half.batch(0, epoch, step, rank) for rank, half in enumerate(halves)]
        for rank, (part_x, part_y, part_fresh) in enumerate(parts):
            rows = slice(rank * config.batch // 2, (rank + 1) * config.batch // 2)
            width = part_y.shape[1]
            assert np.array_equal(y[rows, :width], part_y) and (y[rows, width:] == -1).all()
            assert np.array_equal(x[rows, :width], part_x) and np.array_equal(fresh[rows], part_fresh)
    if epoch == 0:
        assert batcher.padding == pytest.approx(1 - corpus.symbols / positions)


def test_each_pool_reads_short_and_long_records() -> None:
    random = np.random.default_rng(0)
    lengths = np.append(random.integers(1, 30, 4000), random.integers(31, 90, 50))
    tokens = np.concatenate([np.append(np.arange(length), 99) for length in lengths]).astype(np.uint8)
    batcher = RecordBatcher(RecordsConfig(16, 31), TokenCorpus.of_records(tokens, 99))
    epochs = [[batcher.batch(1, epoch, step) for step in range(batcher.steps_per_epoch)] for epoch in (0, 1)]
    for batches in epochs:
        ended = np.concatenate([(y == 99).sum(axis=1) for _, y, _ in batches])
        assert ended.sum() == len(lengths)
        # Records of one pool, on average, are as long as all records; those of one batch are of like length.
        widths = np.array([y.shape[1] for _, y, fresh in batches if fresh[0] and y.shape[1] < 31])
        pool_means = widths[: len(widths) // 16 * 16].reshape(-1, 16).mean(axis=1)
        assert widths.std() > 5 and pool_means.std() < 3
    assert any(first[1].shape != second[1].shape for first, second in zip(*epochs, strict=True))
    assert batcher.padding < 0.1


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the corpus is one text; expected the option records"):
        RecordBatcher(RecordsConfig(), TokenCorpus(np.arange(100)))
    with pytest.raises(CorpusError, match="no records"):
        RecordBatcher(RecordsConfig(), TokenCorpus.of_records(np.empty(0, np.uint8), 3))
    with pytest.raises(ConfigError, match=r"batcher\.batch = 3: 2 processes"):
        RecordBatcher(RecordsConfig(3), TokenCorpus.of_records(np.array([1, 3]), 3), World(0, 2))
