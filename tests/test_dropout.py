"""Dropout on a CPU: the share that was asked for, unbiased, the same again from the same random state."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gentext.plugins.models.dropout import Dropout

ELEMENTS = 40_000


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
