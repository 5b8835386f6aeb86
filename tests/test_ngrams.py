"""N-grams as an input of the model lstm: their vectors depend on the last symbols alone, in any cut of a text."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gentext.config import build_config
from gentext.errors import ConfigError
from gentext.plugins.models.lstm import LSTMConfig, LSTMModel, count_parameters
from gentext.plugins.models.lstm_ensemble import LSTMEnsemble, LSTMEnsembleConfig
from gentext.plugins.models.ngrams import NgramEmbedding
from gentext.testing import check_model

V = 7
NETWORK = LSTMConfig(
    hidden=6, embedding=4, dropout=0.0, norm=True, skip=True, ngram_length=4, ngram_rows=50, ngram_embedding=3
)


def _ngrams(length: int, rows: int = 1000) -> NgramEmbedding:
    """Return vectors that differ: those of a model before its first step are zeros."""
    torch.manual_seed(length)
    ngrams = NgramEmbedding(V, length, rows, 3, dropout=0.0)
    torch.nn.init.normal_(ngrams.table.weight, std=0.1)
    return ngrams


@hypothesis_settings(deadline=None)
@given(length=st.integers(2, 7), positions=st.integers(2, 20), data=st.data())
def test_a_text_may_be_cut_anywhere(length: int, positions: int, data: st.DataObject) -> None:
    ngrams = _ngrams(length)
    tokens = torch.randint(V, (2, positions))
    initial = torch.zeros(length - 1, 2, dtype=torch.int64)
    vectors, hashes = ngrams(tokens, initial)
    assert vectors.shape == (2, positions, 3 * (length - 1))

    cut = data.draw(st.integers(1, positions - 1))
    first, middle = ngrams(tokens[:, :cut], initial)
    second, last = ngrams(tokens[:, cut:], middle)
    torch.testing.assert_close(torch.cat([first, second], dim=1), vectors)
    assert torch.equal(last, hashes)

    state = initial
    for position in range(positions):
        step_vectors, state = ngrams.step(tokens[:, position], state)
        torch.testing.assert_close(step_vectors, vectors[:, position])
    assert torch.equal(state, hashes)


def test_each_length_has_a_vector_of_its_last_symbols() -> None:
    """After "ab" and another beginning, the two symbols have one vector, and the three of them have two."""
    ngrams = _ngrams(3)
    tokens = torch.tensor([[5, 0, 1], [6, 0, 1], [6, 1, 0]])
    vectors, _ = ngrams(tokens, torch.zeros(2, 3, dtype=torch.int64))
    two, three = vectors[:, -1].split(3, dim=1)
    assert torch.equal(two[0], two[1]) and not torch.equal(three[0], three[1])
    assert not torch.equal(two[1], two[2]), "the order of the symbols counts"
    begun, _ = ngrams(tokens[:, 1:], torch.zeros(2, 3, dtype=torch.int64))
    assert torch.equal(begun[:, -1, :3], two) and not torch.equal(begun[:, -1, 3:], three), "nothing was before them"


def test_the_networks_pass_the_kit() -> None:
    """Also with vectors that are not zeros, of which a wrong state would show."""

    class Trained(LSTMModel):
        def __init__(self, config: LSTMConfig, vocab_size: int) -> None:
            super().__init__(config, vocab_size)
            assert self.ngrams is not None
            torch.nn.init.normal_(self.ngrams.table.weight)

    check_model(Trained, NETWORK)
    check_model(Trained, dataclasses.replace(NETWORK, ngram_length=2))
    check_model(LSTMEnsemble, LSTMEnsembleConfig(**dataclasses.asdict(NETWORK), members=2))


def test_they_need_an_embedding() -> None:
    with pytest.raises(ConfigError, match="ngram_length = 4 with embedding = 0: expected an embedding, or an ngram"):
        build_config(LSTMConfig, {"ngram_length": 4}, "model")


def test_the_parameters_are_counted() -> None:
    model = LSTMModel(NETWORK, V)
    norms = sum(parameter.numel() for parameter in model.norms.parameters())
    assert count_parameters(NETWORK, V) == sum(parameter.numel() for parameter in model.parameters()) - norms
    plain = dataclasses.replace(NETWORK, ngram_length=1)
    assert LSTMModel(plain, V).ngrams is None
    assert [spec.name for spec in LSTMModel(plain, V).state_spec] == ["h", "c"]
