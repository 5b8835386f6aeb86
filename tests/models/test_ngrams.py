"""N-grams as an input of the model lstm: their vectors depend on the last symbols alone, in any cut of a text."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

from gentext.config import build_config
from gentext.errors import ConfigError
from gentext.plugins.models.lstm import LSTMConfig, LSTMModel, count_parameters
from gentext.plugins.models.lstm_ensemble import LSTMEnsemble, LSTMEnsembleConfig
from gentext.plugins.models.ngrams import NgramEmbedding, NgramHash
from gentext.testing import check_model

V = 7
NETWORK = LSTMConfig(
    hidden=6, embedding=4, dropout=0.0, norm=True, skip=True, ngram_length=4, ngram_rows=50, ngram_embedding=3
)


def _tables(length: int) -> NgramEmbedding:
    """Return vectors that differ: those of a model before its first step are zeros."""
    embedding = NgramEmbedding(length, 1000, 3, dropout=0.0)
    torch.nn.init.normal_(embedding.table.weight, std=0.1)
    return embedding


@examples()
@given(length=st.integers(2, 7), positions=st.integers(2, 20), data=st.data())
def test_a_text_may_be_cut_anywhere(length: int, positions: int, data: st.DataObject) -> None:
    torch.manual_seed(length)
    ngram_hash, embedding = NgramHash(V, length, 1000), _tables(length)
    tokens = torch.randint(V, (2, positions))
    initial = torch.zeros(1, 2, length - 1, dtype=torch.int64)
    rows, hashes = ngram_hash(tokens, initial)
    vectors = embedding(rows)
    assert vectors.shape == (2, positions, embedding.size) == (2, positions, 3 * (length - 1))

    cut = data.draw(st.integers(1, positions - 1))
    first, middle = ngram_hash(tokens[:, :cut], initial)
    second, last = ngram_hash(tokens[:, cut:], middle)
    assert torch.equal(torch.cat([first, second], dim=1), rows)
    assert torch.equal(last, hashes)

    state = initial
    for position in range(positions):
        step_rows, state = ngram_hash.step(tokens[:, position], state)
        assert torch.equal(step_rows[0], rows[:, position])
        torch.testing.assert_close(embedding.step(step_rows), vectors[:, position])
    assert torch.equal(state, hashes)


def test_each_length_has_a_row_of_its_last_symbols() -> None:
    """After "ab" and another beginning, the two symbols have one row, and the three of them have two."""
    torch.manual_seed(3)
    ngram_hash = NgramHash(V, 3, 1000)
    tokens = torch.tensor([[5, 0, 1], [6, 0, 1], [6, 1, 0]])
    rows, _ = ngram_hash(tokens, torch.zeros(1, 3, 2, dtype=torch.int64))
    two, three = rows[:, -1].t().tolist()
    assert two[0] == two[1] and three[0] != three[1]
    assert two[1] != two[2], "the order of the symbols counts"
    begun, _ = ngram_hash(tokens[:, 1:], torch.zeros(1, 3, 2, dtype=torch.int64))
    two_begun, three_begun = begun[:, -1].t().tolist()
    assert two_begun == two and set(three_begun).isdisjoint(three), "nothing was before them"


@pytest.mark.parametrize("length", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_the_network_passes_the_kit(length: int) -> None:
    """Also with vectors that are not zeros, of which a wrong state would show."""

    def trained(config: LSTMConfig, vocab_size: int) -> LSTMModel:
        model = LSTMModel(config, vocab_size)
        torch.nn.init.normal_(model.ngrams.table.weight)
        return model

    check_model(trained, dataclasses.replace(NETWORK, ngram_length=length))


@pytest.mark.slow
def test_an_ensemble_passes_the_kit() -> None:
    check_model(LSTMEnsemble, LSTMEnsembleConfig(**dataclasses.asdict(NETWORK), members=2))


def test_they_need_an_embedding() -> None:
    with pytest.raises(ConfigError, match="ngram_length = 4 with embedding = 0: expected an embedding, or an ngram"):
        build_config(LSTMConfig, {"ngram_length": 4}, "model")


def test_the_parameters_are_counted() -> None:
    model = LSTMModel(NETWORK, V)
    norms = sum(parameter.numel() for parameter in model.norms.parameters())
    assert count_parameters(NETWORK, V) == sum(parameter.numel() for parameter in model.parameters()) - norms
    plain = dataclasses.replace(NETWORK, ngram_length=1)
    assert LSTMModel(plain, V).ngram_hash is None
    assert [spec.name for spec in LSTMModel(plain, V).state_spec] == ["h", "c"]
