"""What is dropped in training: the share that was asked for, unbiased, the same again from the same random state."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gentext.plugins.models.dropout import Dropout, drop_symbols, replace_symbols
from gentext.plugins.models.lstm import LSTMConfig, LSTMModel

ELEMENTS = 40_000
PLAIN = LSTMConfig(hidden=24, layers=2, embedding=6, dropout=0.0, norm=True, skip=True)
#: Everything that is dropped or replaced in training.
REGULARIZED = dataclasses.replace(
    PLAIN,
    dropout=0.3,
    input_dropout=0.2,
    dropout_mask="window",
    symbol_dropout=0.2,
    weight_dropout=0.4,
    input_noise=0.2,
)
V, B, T = 11, 3, 40


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_drops_the_share_that_was_asked_for(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    inputs = torch.ones(ELEMENTS, dtype=dtype, requires_grad=True)
    out = Dropout(p)(inputs)
    out.sum().backward()
    scale = torch.tensor(1 / (1 - p), dtype=dtype)
    assert out.dtype == dtype and torch.equal(out.unique(), torch.stack([torch.zeros_like(scale), scale]))
    assert inputs.grad is not None and torch.equal(inputs.grad, out)  # the gradient passes where the value did
    share = (out == 0).float().mean().item()
    assert abs(share - p) < 4 * (p * (1 - p) / ELEMENTS) ** 0.5


@given(st.integers(0, 70), st.sampled_from([0.0, 0.3, 0.99999]), st.integers(0, 2**31))
def test_any_size_follows_the_random_state(size: int, p: float, seed: int) -> None:
    dropout, x = Dropout(p), torch.arange(1.0, size + 1)
    torch.manual_seed(seed)
    state = torch.get_rng_state()
    first, second = dropout(x), dropout(x)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x), first) and torch.equal(dropout(x), second)
    assert torch.equal(dropout.eval()(x), x)


def assert_share(is_dropped: torch.Tensor, p: float) -> None:
    assert abs(is_dropped.float().mean().item() - p) < 4 * (p * (1 - p) / is_dropped.numel()) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_positions_of_a_window_share_a_mask(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    inputs = torch.ones(50, 7, 100, dtype=dtype, requires_grad=True)
    out = Dropout(0.3, per_window=True)(inputs)
    out.sum().backward()
    assert torch.equal(out, out[:, :1].expand_as(out)) and out.dtype == dtype
    assert inputs.grad is not None and torch.equal(inputs.grad, out)
    assert not torch.equal(out[0], out[1])  # each row has its own
    assert_share(out[:, 0] == 0, 0.3)
    assert torch.equal(out.unique(), torch.tensor([0, 1 / 0.7], dtype=dtype))


def test_a_symbol_is_dropped_everywhere_in_a_row_or_nowhere() -> None:
    torch.manual_seed(1)
    tokens = torch.randint(V, (200, T))
    out = drop_symbols(torch.ones(200, T, 5), tokens, V, 0.25)
    factors = torch.full((200, V), torch.nan).scatter(1, tokens, out[:, :, 0])  # the last of each symbol
    assert torch.equal(factors.gather(1, tokens)[:, :, None].expand(-1, -1, 5), out)
    assert torch.equal(out.unique(), torch.tensor([0, 1 / 0.75]))
    assert_share(factors[~factors.isnan()] == 0, 0.25)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.sampled_from([0.0, 0.5, 0.9]), st.integers(0, 2**31))
def test_symbols_are_replaced_by_those_of_the_batch(symbols: list[int], share: float, seed: int) -> None:
    torch.manual_seed(seed)
    tokens = torch.tensor([symbols])
    replaced = replace_symbols(tokens, share)
    assert replaced.shape == tokens.shape and set(replaced.flatten().tolist()) <= set(symbols)
    assert share or torch.equal(replaced, tokens)


def test_share_of_replaced_symbols_and_their_frequencies() -> None:
    torch.manual_seed(1)
    tokens = torch.arange(ELEMENTS).view(4, -1)  # all differ, so that hardly any is replaced by its like
    assert_share(replace_symbols(tokens, 0.1) != tokens, 0.1)
    rare = torch.arange(ELEMENTS).view(4, -1) % 100 == 0
    assert_share(replace_symbols(rare.long(), 0.99) == 1, 0.01)


def test_some_recurrent_weights_are_dropped_at_all_positions() -> None:
    model = LSTMModel(dataclasses.replace(PLAIN, weight_dropout=0.4), V)
    tokens, state = torch.randint(V, (B, T)), model.initial_state(B)
    state_before = torch.get_rng_state()
    logits, new_state = model(tokens, state)
    torch.set_rng_state(state_before)
    assert torch.equal(model(tokens, state)[0], logits)
    logits.square().sum().backward()
    gradients = [layer.weight_hh_l0.grad for layer in model.lstms]
    assert_share(torch.cat(gradients).flatten() == 0, 0.4)
    dropped = LSTMModel(PLAIN, V).train()
    dropped.load_state_dict(model.state_dict())
    for layer, gradient in zip(dropped.lstms, gradients, strict=True):
        layer.weight_hh_l0.data *= (gradient != 0).float().mul(1 / 0.6)
    expected, expected_state = dropped(tokens, state)
    assert torch.equal(logits, expected)
    assert all(map(torch.equal, new_state, expected_state))


@pytest.mark.parametrize("embedding", [0, 6])
def test_all_of_it_is_off_outside_of_training(embedding: int) -> None:
    torch.manual_seed(1)
    model = LSTMModel(dataclasses.replace(REGULARIZED, embedding=embedding), V)
    plain = LSTMModel(dataclasses.replace(PLAIN, embedding=embedding), V).eval()
    plain.load_state_dict(model.state_dict())
    tokens, state = torch.randint(V, (B, T)), model.initial_state(B)
    first, second = (model(tokens, state)[0] for _ in range(2))
    assert not torch.equal(first, second)
    first.square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in model.parameters())
    random_state = torch.get_rng_state()
    model.eval()
    assert torch.equal(model(tokens, state)[0], plain(tokens, state)[0])
    assert torch.equal(model.step(tokens[:, 0], state)[0], plain.step(tokens[:, 0], state)[0])
    assert torch.equal(torch.get_rng_state(), random_state)
