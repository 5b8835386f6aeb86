"""The check of gentext.testing for models finds each planted fault, and names its rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from planted import Fault, name_faults, plant
from torch import Tensor, nn

from gentext.capabilities import SupportsHiddenMatrices
from gentext.interfaces import StateSpec
from gentext.plugins.models.lstm import LSTMConfig, LSTMModel
from gentext.plugins.models.lstm_ensemble import LSTMEnsemble, LSTMEnsembleConfig
from gentext.testing import check_model

SMALL = LSTMConfig(hidden=8, layers=1, embedding=4, dropout=0.0)


class Sums(nn.Module):
    """The state is the sum of all vectors so far: small, and right but for a planted fault."""

    def __init__(self, config: Any, vocab_size: int) -> None:
        super().__init__()
        self.state_spec = (StateSpec("total", (None, 6)),)
        self.embedding = nn.Embedding(vocab_size, 6)
        self.head = nn.Linear(6, vocab_size)

    def initial_state(self, rows: int) -> tuple[Tensor, ...]:
        return (torch.zeros(rows, 6),)

    def vectors(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens)

    def forward(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        totals = state[0][:, None] + self.vectors(tokens).cumsum(dim=1)
        return self.head(torch.tanh(totals)), (totals[:, -1],)

    def step(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        total = state[0] + self.vectors(tokens)
        return self.head(torch.tanh(total)), (total,)


class ReadsAhead(Sums):
    def vectors(self, tokens: Tensor) -> Tensor:
        vectors = self.embedding(tokens)
        return vectors if tokens.dim() == 1 else vectors + vectors.roll(-1, 1)


class MixesRows(Sums):
    def vectors(self, tokens: Tensor) -> Tensor:
        vectors = self.embedding(tokens)
        return vectors - vectors.mean(dim=0, keepdim=True)


class DropsInEvaluation(Sums):
    def vectors(self, tokens: Tensor) -> Tensor:
        return nn.functional.dropout(self.embedding(tokens), 0.5)


class KeepsNoState(Sums):
    def forward(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        totals = self.vectors(tokens).cumsum(dim=1)
        return self.head(torch.tanh(totals)), (totals[:, -1],)


class KeepsAnotherState(Sums):
    def step(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        logits, _ = super().step(tokens, state)
        return logits, (self.vectors(tokens),)


class StepsOtherwise(Sums):
    def step(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        total = state[0] + self.vectors(tokens)
        return self.head(torch.relu(total)), (total,)


class ChangesItsState(Sums):
    def step(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        state[0].add_(self.vectors(tokens))
        return self.head(torch.tanh(state[0])), (state[0],)


class ChangesItsTokens(Sums):
    def step(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        result = super().step(tokens, state)
        tokens.zero_()
        return result


class LosesAWeight(Sums):
    def __init__(self, config: Any, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.scale = torch.rand(6) + 0.5

    def vectors(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens) * self.scale


class DecidesOnAValue(Sums):
    def step(self, tokens: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        total = state[0] + self.vectors(tokens)
        return self.head(torch.tanh(total) if float(total.sum()) < 1e9 else total), (total,)


class NoTensors(Sums):
    def forward(self, tokens: Tensor, state: tuple[Tensor, ...]) -> Any:
        logits, next_state = super().forward(tokens, state)
        return logits, list(next_state)


def logits_are(change: Any) -> type[Any]:
    def forward(self: Any, tokens: Tensor, state: tuple[Tensor, ...]) -> Any:
        logits, next_state = Sums.forward(self, tokens, state)
        return change(logits), next_state

    return plant(Sums, forward=forward)


def rising(self: Any, rows: int) -> tuple[Tensor, ...]:
    return (torch.arange(rows, dtype=torch.float32)[:, None].expand(rows, 6),)


MODEL_FAULTS: list[Fault] = [
    (type("Faulty", (), {"__init__": lambda self, config, vocab_size: None}), "is no torch.nn.Module"),
    (plant(Sums, initial_state=lambda self, rows: (torch.zeros(rows, 7),)), "its state_spec declares total float32"),
    (plant(Sums, initial_state=lambda self, rows: torch.zeros(rows, 6)), "must return a tuple of 1 tensors"),
    (plant(Sums, initial_state=rising), "rows of total that differ; all must begin alike"),
    (logits_are(lambda logits: logits[:, -1]), r"forward returned logits torch.float32 \(4, 13\); expected floats of"),
    (logits_are(lambda logits: logits.argmax(-1, keepdim=True).expand_as(logits)), "logits torch.int64"),
    (logits_are(lambda logits: logits / 0), "forward returned logits that are infinite or NaN"),
    (logits_are(lambda logits: logits.detach()), "the logits do not depend on parameters"),
    (logits_are(lambda logits: logits * 0), "the logits after a symbol do not depend on it"),
    (NoTensors, "forward must return the new state as a tuple of 1 tensors"),
    (plant(Sums, step=lambda self, tokens, state: self.head(state[0])), "step returned Tensor; expected logits and"),
    (ChangesItsState, "step changes the state total that it reads in place"),
    (ChangesItsTokens, "step changes its tokens in place"),
    (DropsInEvaluation, "nothing may be random there"),
    (ReadsAhead, "no position may read what follows"),
    (MixesRows, "never mix rows"),
    (KeepsNoState, "forward gives other logits for a text in two parts"),
    (StepsOtherwise, "step gives other logits than forward at position 0"),
    (KeepsAnotherState, "step gives other logits than forward at position 2"),
    (LosesAWeight, "register all weights as nn.Parameter"),
    (plant(Sums, symbol_axes=lambda self: {"head.weight": 1}), r"says that axis 1 of head.weight \(13, 6\) is the sym"),
    (plant(Sums, symbol_axes=lambda self: {"heads": 0}), "names 'heads', which is not in the state dict"),
    (plant(Sums, hidden_matrices=lambda self: {"head.bias": 1}), "has 1 matrices of equal height"),
    (
        plant(Sums, member_logits=lambda self, tokens, state: self(tokens, state)),
        r"returned \(2, 3, 13\); expected \(members, 2, 3, 13\)",
    ),
    (plant(Sums, scale_logits=lambda self, factor: None), r"scale_logits\(0.5\) must halve all logits"),
]


@pytest.mark.parametrize(**name_faults(MODEL_FAULTS))
def test_fault_of_a_model_is_named(cls: type[Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_model(cls)


def test_model_that_cannot_be_traced_is_named() -> None:
    with pytest.raises(AssertionError, match=r"the model cannot be exported|the model's step cannot be traced"):
        check_model(DecidesOnAValue)


def test_models_that_keep_the_rules_pass() -> None:
    random_state = torch.random.get_rng_state()
    check_model(Sums)
    check_model(LSTMModel, SMALL)
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert issubclass(LSTMModel, SupportsHiddenMatrices)


@pytest.mark.slow  # test_ngrams.py has an ensemble of two
def test_a_large_ensemble_keeps_the_rules() -> None:
    check_model(LSTMEnsemble, LSTMEnsembleConfig(hidden=6, layers=2, embedding=4, norm=True, skip=True, members=3))
