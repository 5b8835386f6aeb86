"""Muon: updates without a drowned direction, each matrix for itself, and AdamW for a model that does not tell."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import Parameter

from gentext.errors import PluginError
from gentext.plugins.models import lstm
from gentext.plugins.models.lstm import LSTMConfig, LSTMModel
from gentext.plugins.trainers.learner import find_hidden_matrices
from gentext.plugins.trainers.muon import ADAM_RMS, MAX_BLOCK_ROWS, Muon, orthogonalize

RATE, SCALE, DECAY = 0.01, 2.0, 0.1


def with_gradient(weight: torch.Tensor, gradient: torch.Tensor) -> Parameter:
    parameter = Parameter(weight.clone())
    parameter.grad = gradient.clone()
    return parameter


@examples()
@given(st.integers(1, 3), st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**31), st.floats(-8, 8))
def test_singular_values_come_near_1_and_vectors_stay(n: int, rows: int, columns: int, seed: int, power: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    small = min(rows, columns)
    u = torch.linalg.qr(torch.randn(n, rows, small, generator=generator, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(n, columns, small, generator=generator, dtype=torch.float64)).Q
    values = torch.logspace(0, -1.3, small, dtype=torch.float64) * 10**power
    result = u.mT @ orthogonalize((u * values) @ v.mT) @ v
    singular_values = result.diagonal(dim1=1, dim2=2)
    off_diagonal = result - torch.diag_embed(singular_values)
    assert off_diagonal.abs().max() < 1e-9
    assert singular_values.min() > 0.48 and singular_values.max() < 1.52


@pytest.mark.parametrize(("rows", "blocks"), [(128, 1), (256, 2), (129, 2), (382, 3)])
def test_each_block_of_rows_is_made_orthogonal_for_itself(rows: int, blocks: int) -> None:
    assert MAX_BLOCK_ROWS == 128
    generator = torch.Generator().manual_seed(1)
    matrices = torch.randn(2, rows, 4 * MAX_BLOCK_ROWS, dtype=torch.float64, generator=generator)
    parts = matrices.split(math.ceil(rows / blocks), dim=1)
    result = orthogonalize(matrices)
    torch.testing.assert_close(result, torch.cat([orthogonalize(part) for part in parts], dim=1))
    torch.testing.assert_close(orthogonalize(matrices.mT), result.mT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_stacked_matrices_are_trained_each_for_itself(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    weight, gradient = torch.randn(12, 6), torch.randn(12, 6)
    gradient[:4] *= 1e-3  # a gate with small gradients moves as far as the others
    stacked = with_gradient(weight, gradient)
    parts = [with_gradient(*pair) for pair in zip(weight.chunk(3), gradient.chunk(3), strict=True)]
    together = Muon({stacked: 3}, RATE, SCALE, DECAY, dtype)
    alone = Muon(dict.fromkeys(parts, 1), RATE, SCALE, DECAY, dtype)
    for _ in range(3):
        together.step()
        alone.step()
    torch.testing.assert_close(stacked.detach(), torch.cat([part.detach() for part in parts]))
    moved = (stacked.detach() - weight * (1 - RATE * DECAY) ** 3).unflatten(0, (3, 4)).square().mean((1, 2)).sqrt()
    usual = 3 * RATE * SCALE * ADAM_RMS * math.sqrt(6) * math.sqrt(4 / 24)  # rank 4 in a matrix of 4 x 6
    assert (moved / usual).min() > 0.6 and (moved / usual).max() < 1.3


def test_a_weight_without_gradient_stays() -> None:
    weight = Parameter(torch.ones(4, 2))
    Muon({weight: 1}, RATE, SCALE, DECAY, torch.float32).step()
    assert torch.equal(weight, torch.ones(4, 2))


@pytest.mark.parametrize("embedding", [0, 3])
def test_an_lstm_names_what_lies_between_hidden_units(embedding: int) -> None:
    model = LSTMModel(LSTMConfig(hidden=5, layers=2, embedding=embedding), 7)
    inside = {"lstms.0.weight_hh_l0", "lstms.1.weight_ih_l0", "lstms.1.weight_hh_l0"}
    assert set(model.hidden_matrices()) == inside | ({"lstms.0.weight_ih_l0"} if embedding else set())
    for name, stacked in model.hidden_matrices().items():
        assert len(model.get_parameter(name)) == 5 * stacked


@pytest.mark.parametrize("wrong", [{"head.bias": 1}, {"nothing": 1}, {"head.weight": 2}, {"head.weight": 0}], ids=str)
def test_a_model_that_names_something_else_is_told(wrong: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = LSTMModel(LSTMConfig(hidden=5), 7)
    monkeypatch.setattr(model, "hidden_matrices", lambda: wrong)
    with pytest.raises(PluginError, match=f"hidden_matrices: '{next(iter(wrong))}' has the shape"):
        find_hidden_matrices(model)


class SilentLSTM(LSTMModel):
    """A model that does not name its hidden matrices."""

    hidden_matrices = None  # type: ignore[assignment]


def test_a_model_that_does_not_tell_is_trained_by_adamw(
    gen: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("abc def\n" * 400)
    changes = ("model.hidden=8", "batcher.length=20", "run.threads=1")
    options = [word for setting in changes for word in ("--set", setting)]
    tensors = {}
    for name, optimizer in (("muon", "muon"), ("silent", "muon"), ("adamw", "adamw")):
        if name == "silent":
            monkeypatch.setattr(lstm, "LSTMModel", SilentLSTM)
        words = ("--set", f"trainer.optimizer={optimizer}", *options, "--steps", "3", "--no-export")
        code, _, err = gen("train", text, "--run", tmp_path / name, *words)
        assert code == 0 and ("AdamW trains all of it" in err) == (name == "silent"), err
        tensors[name] = (tmp_path / name / "checkpoints").glob("last-step000003*")
    muon, silent, adamw = (safetensors.torch.load_file(next(paths)) for paths in tensors.values())
    assert any(key.startswith("muon.") for key in muon) and muon.keys() != adamw.keys()
    assert silent.keys() == adamw.keys() and all(torch.equal(silent[key], adamw[key]) for key in adamw)
