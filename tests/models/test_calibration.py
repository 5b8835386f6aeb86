"""Calibration: one factor of all logits, found on text that is set aside, and part of the model that is exported."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Gen
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

import gentext
from gentext.describe import load_run_tokenizer
from gentext.errors import ConfigError, RunError
from gentext.plugins.models.lstm import LSTMConfig, LSTMModel
from gentext.plugins.models.lstm_ensemble import LSTMEnsemble, LSTMEnsembleConfig
from gentext.plugins.pytorch import build_model, load_best_checkpoint, mean_loss
from gentext.plugins.pytorch.checkpoint import Checkpoint, load_for_prediction
from gentext.plugins.trainers.calibration import (
    check_logit_scale,
    find_logit_scale,
    scaled_logits,
    split_calibration,
)
from gentext.run import Run
from gentext.token_corpus import TokenCorpus

V = 5


class Frequencies(torch.nn.Module):
    """Predicts the same at each position: the logarithms of the symbols' frequencies, too sharp by a factor."""

    state_spec = ()

    def __init__(self, counts: list[int], factor: float) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(factor * torch.tensor(counts, dtype=torch.float64).log().float())

    def initial_state(self, rows: int) -> tuple[torch.Tensor, ...]:
        return ()

    def forward(self, tokens: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        return self.logits.expand(*tokens.shape, V), ()

    def scale_logits(self, factor: float) -> None:
        with torch.no_grad():
            self.logits.mul_(factor)


@examples()
@given(
    counts=st.lists(st.integers(1, 60), min_size=V, max_size=V).filter(lambda counts: max(counts) > 2 * min(counts)),
    factor=st.floats(0.6, 3.5),
    as_records=st.booleans(),
)
def test_scale_is_that_of_the_lowest_loss(counts: list[int], factor: float, as_records: bool) -> None:
    """Where the frequencies themselves are the best prediction, the factor is undone."""
    if as_records:  # of two symbols each, the second of which is the boundary, 4
        counts = [*counts[:4], sum(counts[:4])]
        tokens = np.stack([np.repeat(np.arange(4), counts[:4]), np.full(counts[4], 4)], 1).flatten()
        corpus = TokenCorpus.of_records(tokens.astype(np.uint8), 4)
    else:
        tokens = np.tile(np.repeat(np.arange(V), counts), 12_000 // sum(counts))
        corpus = TokenCorpus(np.random.default_rng(0).permutation(tokens).astype(np.uint8))
    model: Any = Frequencies(counts, factor)
    scale = find_logit_scale(model, corpus)
    assert scale == pytest.approx(1 / factor, rel=0.03)
    former_loss = mean_loss(model, corpus)
    with scaled_logits(model, scale):
        assert mean_loss(model, corpus) <= former_loss + 1e-4


@pytest.mark.parametrize("name", ["lstm", "lstm_ensemble"])
def test_logits_are_scaled_and_the_very_weights_come_back(name: str) -> None:
    model: Any = LSTMModel(LSTMConfig(hidden=6, embedding=4), V)
    if name == "lstm_ensemble":
        model = LSTMEnsemble(LSTMEnsembleConfig(hidden=6, embedding=4, members=3), V)
    model.eval()
    tokens, state = torch.tensor([[1, 2, 3]]), model.initial_state(1)
    former_weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    logits, _ = model(tokens, state)
    with pytest.raises(ZeroDivisionError), scaled_logits(model, 0.7):
        torch.testing.assert_close(model(tokens, state)[0], 0.7 * logits)
        raise ZeroDivisionError
    assert all(torch.equal(tensor, former_weights[key]) for key, tensor in model.state_dict().items())


@given(st.lists(st.integers(1, 9), min_size=4, max_size=40), st.data())
def test_what_is_set_aside_is_not_learned(lengths: list[int], data: st.DataObject) -> None:
    tokens = np.concatenate([[index % 250] * (length - 1) + [255] for index, length in enumerate(lengths)])
    symbols = data.draw(st.integers(1, len(tokens) // 2))
    text = TokenCorpus(tokens.astype(np.uint8))
    rest, aside = text.set_aside(symbols)
    assert aside.symbols == symbols and np.array_equal(np.concatenate([rest.tokens, aside.tokens]), text.tokens)

    repeats = data.draw(st.none() | st.lists(st.integers(1, 3), min_size=len(lengths), max_size=len(lengths)))
    records = TokenCorpus.of_records(tokens, 255, None if repeats is None else np.array(repeats))
    rest, aside = records.set_aside(symbols)
    assert rest.symbols + aside.symbols == records.symbols and aside.records >= 1
    counts = np.ones(len(lengths), int) if repeats is None else np.array(repeats)
    assert rest.repeats is not None and aside.repeats is not None
    assert np.array_equal(np.sort(counts[rest.repeats == 0]), np.sort(aside.repeats))


def test_a_text_that_is_too_short_is_an_error() -> None:
    text = TokenCorpus(np.zeros(100, np.uint8))
    assert split_calibration(text, 0) == (text, None)
    with pytest.raises(ConfigError, match=r"trainer.calibration=51: more than half of the 100 symbols"):
        split_calibration(text, 51)


def test_a_single_record_cannot_be_set_aside() -> None:
    with pytest.raises(ConfigError, match="only one record"):
        split_calibration(TokenCorpus.of_records(np.array([1, 2, 3, 9]), 9), 1)


def test_a_model_that_cannot_be_scaled_is_an_error() -> None:
    model: Any = torch.nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="it has no scale_logits"):
        check_logit_scale(model)


@pytest.mark.parametrize("scale", [-1.0, 0.0, math.inf, math.nan, True, "2", None, 10**400])
def test_a_damaged_scale_is_an_error(scale: Any, tmp_path: Path) -> None:
    model = LSTMModel(LSTMConfig(hidden=4), V)
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    with pytest.raises(RunError, match=r"damaged \(logit_scale is"):
        load_for_prediction(model, Checkpoint(tmp_path / "file", tensors, {"step": 1, "logit_scale": scale}))


def test_run_is_calibrated_and_exported(tiny_text: Path, tmp_path: Path, gen: Gen) -> None:
    """A small text that is read thirty times is learned by heart; the losses are those of the calibrated model."""
    text = tmp_path / "text.txt"
    text.write_text(tiny_text.read_text()[:2400])
    options = ("--set", "model.hidden=24", "--set", "model.embedding=8", "--set", "trainer.rate=0.03", "--seed", 1)
    options += ("--set", "batcher.batch=4", "--set", "batcher.length=20", "--set", "run.threads=1", "--epochs", 30)
    code, _, err = gen(
        "train", text, "--run", tmp_path / "run", "--preset", "notebook", *options, "--set", "model.dropout=0",
        "--set", "trainer.calibration=300", "--set", "run.export_precision=fp32",
    )  # fmt: skip
    assert code == 0, err
    run = Run(tmp_path / "run")
    checkpoint = load_best_checkpoint(run)
    assert 0.25 <= checkpoint.meta["logit_scale"] < 0.97
    calibrated = build_model(run, checkpoint)
    weights = checkpoint.tensors["model.head.weight"] * checkpoint.meta["logit_scale"]
    torch.testing.assert_close(calibrated.head.weight, weights)
    held_out = (run.path / "held_out.txt").read_text()
    exported_loss = gentext.load(run.path).score(held_out).nats_per_symbol
    assert exported_loss == pytest.approx(run.read_metrics()[-1]["val_loss"], abs=2e-4)
    uncalibrated = build_model(run, Checkpoint(checkpoint.path, checkpoint.tensors, {"step": 1}))
    corpus = TokenCorpus(np.array(load_run_tokenizer(run).encode(held_out), np.uint8))
    assert mean_loss(calibrated, corpus) < mean_loss(uncalibrated, corpus)
