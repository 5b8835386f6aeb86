"""Losses: the notebook's own formula, the stream's, and what the held-out loss covers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import examples, fails, notebook_batches
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from gentext.errors import PluginError
from gentext.interfaces import Chunk, Request
from gentext.plugins.models.lstm import LSTMConfig, LSTMModel
from gentext.plugins.pytorch.evaluate import count_logits, mean_loss, windows
from gentext.plugins.samplers.onnx import OnnxSampler
from gentext.run import Run
from gentext.scoring import score
from gentext.scoring.score import (
    NOTEBOOK_LENGTH,
    NOTEBOOK_ROWS,
    WINDOW_LENGTH,
    notebook_loss,
    score_text,
    stream_loss,
    stream_losses,
)
from gentext.token_corpus import TokenCorpus

V = 7


@pytest.fixture(scope="module")
def model() -> LSTMModel:
    torch.manual_seed(3)
    model = LSTMModel(LSTMConfig(hidden=6, layers=2, dropout=0.5), V)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from uniform, so that losses differ
    return model.eval()


def text(length: int) -> NDArray[np.int64]:
    return np.random.default_rng(length).integers(0, V, length)


class Steps:
    """The model as samplers offer it."""

    def __init__(self, model: LSTMModel) -> None:
        self.model = model

    def initial(self, rows: int) -> Any:
        return self.model.initial_state(rows)

    def advance(self, tokens: NDArray[np.int64], state: Any) -> tuple[NDArray[np.float32], Any]:
        with torch.no_grad():
            logits, state = self.model(torch.from_numpy(tokens), state)
        return logits.numpy(), state


def by_the_notebook(model: LSTMModel, data: NDArray[np.int64]) -> float:
    """The validation loop of the notebook, with its get_batches and its criterion."""
    batch_size, seq_length = 128, 100
    criterion, val_losses = nn.CrossEntropyLoss(), []
    val_h = model.initial_state(batch_size)
    with torch.no_grad():
        for x, y in notebook_batches(data, batch_size, seq_length):
            output, val_h = model(torch.from_numpy(x), val_h)
            val_losses.append(criterion(output.flatten(0, 1), torch.from_numpy(y).flatten()).item())
    return float(np.mean(val_losses))


@pytest.mark.parametrize("extra", [0, 1, 777])
def test_notebooks_formula(model: LSTMModel, extra: int) -> None:
    tokens = text(2 * NOTEBOOK_ROWS * NOTEBOOK_LENGTH + extra)
    loss = notebook_loss(Steps(model), tokens)
    assert loss == pytest.approx(by_the_notebook(model, tokens), abs=1e-5)
    assert notebook_loss(Steps(model), tokens[: NOTEBOOK_ROWS * NOTEBOOK_LENGTH - 1]) is None


@pytest.mark.parametrize("length", [1, 2, WINDOW_LENGTH, WINDOW_LENGTH + 1, 3 * WINDOW_LENGTH - 5])
def test_stream_reads_every_symbol_behind_the_start(model: LSTMModel, length: int) -> None:
    tokens, start = text(length), 4
    x = np.concatenate([[start], tokens[:-1]])
    with torch.no_grad():
        logits, _ = model(torch.from_numpy(x[None]), model.initial_state(1))
    expected = nn.functional.cross_entropy(logits[0].double(), torch.from_numpy(tokens), reduction="sum").item()
    assert stream_loss(Steps(model), tokens.astype(np.uint8), start) == pytest.approx(expected, rel=1e-5)
    windows = list(stream_losses(Steps(model), [tokens.astype(np.uint8)[:3], tokens.astype(np.uint8)[3:]], start))
    each = nn.functional.cross_entropy(logits[0].double(), torch.from_numpy(tokens), reduction="none").numpy()
    assert np.concatenate(windows) == pytest.approx(each, rel=1e-4, abs=1e-5)


def test_a_sampler_without_logits_is_refused() -> None:
    class TextOnly:
        bundle: Any = None
        device = "nowhere"

        def generate(self, request: Request) -> Iterator[Chunk]:
            raise NotImplementedError

    with pytest.raises(PluginError, match=r"TextOnly cannot measure a loss: it lacks initial\(rows\)"):
        score_text(TextOnly(), "abc")


@examples(200)
@given(st.integers(2, 3000), st.integers(1, 12), st.integers(1, 40), st.none() | st.integers(1, 4000))
def test_streams_are_spread_over_the_text(count: int, rows: int, length: int, symbols: int | None) -> None:
    tokens = np.arange(count)
    cut = list(windows(tokens, rows, length, symbols))
    used = len(cut[0][0])
    for x, y in cut:
        assert np.array_equal(y, x + 1)  # the true next symbols
        assert x.shape[1] <= length
    read = np.concatenate([y for _, y in cut], axis=1)
    asked = min(count - 1, symbols or count)  # all but the last few of what was asked for
    assert asked - used < read.size <= asked
    assert used <= rows
    gaps = np.diff(read[:, 0]) - read.shape[1]
    assert (gaps >= 0).all()  # no symbol is read twice
    assert np.ptp(gaps) <= 1 if used > 1 else True  # evenly spread, from the first symbol to the last
    assert read[0, 0] == 1
    assert used == 1 or read[-1, -1] == count - 1
    assert (np.diff(read, axis=1) == 1).all()


def test_mean_loss_is_the_mean_over_the_windows(model: LSTMModel) -> None:
    tokens = text(1234)
    total, count, state = 0.0, 0, None
    with torch.no_grad():
        for x, y in windows(tokens):
            state = model.initial_state(len(x)) if state is None else state
            logits, state = model(torch.from_numpy(x), state)
            losses = nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(y).flatten(), reduction="none")
            total, count = total + losses.double().sum().item(), count + y.size
    model.train()  # dropout must not be measured, and the mode comes back
    loss = mean_loss(model, TokenCorpus(tokens))
    assert model.training
    model.eval()
    assert loss == pytest.approx(total / count, rel=1e-6)
    assert np.isnan(mean_loss(model, TokenCorpus(tokens[:1])))


def test_loss_at_the_end_of_training_is_that_of_gen_eval(gen: Callable[..., Any], tiny_run: Path) -> None:
    code, out, err = gen("eval", tiny_run, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["nats_per_character"] == pytest.approx(Run(tiny_run).read_metrics()[-1]["val_loss"], abs=1e-6)
    assert "notebook_formula" not in report
    code, out, err = gen("eval", tiny_run, "--notebook", "--json")
    assert code == 0
    assert json.loads(out)["notebook_formula"] is None
    assert "too short for --notebook" in err


def test_unknown_characters_are_left_out(
    gen: Callable[..., Any], tiny_run: Path, tiny_records_run: Path, tmp_path: Path
) -> None:
    """Of a text and of records; the loss is that of what is left."""
    clean, text = tmp_path / "clean.txt", tmp_path / "text.txt"
    # A batch for the notebook's formula, in records of some length.
    clean.write_text("ab bad cab. a bee\n" * 800, encoding="utf-8")
    text.write_text("é" + clean.read_text("utf-8").replace("bee\n", "beeß\n", 2), encoding="utf-8")
    for run, options in ((tiny_run, ["--notebook"]), (tiny_records_run, [])):
        fails(1, gen("eval", run, text), "text", "first 'é' at position 0; use --unknown skip to leave out")
        code, out, err = gen("eval", run, text, "--json", "--unknown", "skip", *options)
        assert code == 0, err
        assert "3 characters of text are unknown to the model and left out" in err
        report, expected = json.loads(out), json.loads(gen("eval", run, clean, "--json", *options)[1])
        assert report == {**expected, "text": str(text), "unknown": 3}
    fails(1, gen("eval", tiny_records_run, text), "text, line 1: ")
    fails(2, gen("eval", tiny_run, text, "--unknown", "unknown"), "--unknown unknown: expected error or skip")


def test_large_vocabularies_are_read_in_shorter_windows(model: LSTMModel, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, steps = text(NOTEBOOK_ROWS * NOTEBOOK_LENGTH), Steps(model)

    def measure() -> list[float]:
        vocab_size = count_logits(model)
        stream = np.concatenate(list(stream_losses(steps, [tokens[:1500]], 0, vocab_size)))
        return [
            *stream.tolist(),
            notebook_loss(steps, tokens, vocab_size) or 0.0,
            mean_loss(model, TokenCorpus(tokens)),
        ]

    expected, sizes = measure(), []
    original = Steps.advance

    def advance(self: Steps, x: NDArray[np.int64], state: Any) -> Any:
        sizes.append(x.size)
        return original(self, x, state)

    monkeypatch.setattr(Steps, "advance", advance)
    monkeypatch.setattr(score, "LOGITS_BYTES", 4 * count_logits(model) * 3 * NOTEBOOK_ROWS)
    monkeypatch.setattr(score, "CONVERTED_NUMBERS", 7)
    assert measure() == pytest.approx(expected, rel=1e-5)
    assert max(sizes) == 3 * NOTEBOOK_ROWS


@pytest.mark.parametrize("links", [("top_k", "temperature"), ("penalties", "top_p", "temperature")], ids=str)
def test_a_generator_reads_a_window_in_one_call(
    tiny_run: Path, tmp_path: Path, links: tuple[str, ...], gen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses are those of its logits, position by position, whatever chain is compiled into it."""
    code, _, err = gen("export", tiny_run, "-o", tmp_path, "--chain", ",".join(links))
    assert code == 0, err
    generator = OnnxSampler().open(tmp_path / "generator.onnx", "cpu")
    vocab_size, start = generator.bundle.vocab_size, generator.bundle.start
    tokens = np.random.default_rng(0).integers(0, vocab_size, WINDOW_LENGTH + 40)
    calls: list[int] = []
    call = generator.session.call
    monkeypatch.setattr(generator.session, "call", lambda feeds: (calls.append(len(feeds["forced"])), call(feeds))[1])
    losses = np.concatenate(list(stream_losses(generator, [tokens], start, vocab_size)))
    assert calls == [WINDOW_LENGTH, 40]
    logits, _ = generator.advance(np.append(start, tokens[:-1])[None], generator.initial(1))
    np.testing.assert_allclose(losses, score.token_losses(logits[0], tokens), atol=2e-6)
