"""--init-from: a run that begins with the weights of another, whose text may have had other symbols."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from helpers import fails

from gentext.plugins.models import lstm

Gen = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory, tiny_text: Path) -> dict[str, Path]:
    """The tiny text as it is, and with other symbols: new ones, which move the ids of others, and some are gone."""
    folder = tmp_path_factory.mktemp("texts")
    other = tiny_text.read_text(encoding="utf-8").replace("a", "A").replace("b", "!").replace("p", "zp")
    rare = other[:9000] + "?" + other[9000:]
    texts = {"other": other, "rare": rare}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return {"same": tiny_text, **{name: folder / name for name in texts}}


@pytest.fixture(scope="module")
def train(gen: Gen, tiny_options: tuple[str, ...]) -> Callable[..., tuple[int, str, str]]:
    def call(text: Path, run: Path, *options: object) -> tuple[int, str, str]:
        return gen("train", text, "--run", run, *tiny_options, "--no-export", "--steps", 1, *options)

    return call


def weights(run: Path, pattern: str) -> dict[str, torch.Tensor]:
    [path] = run.glob(f"checkpoints/{pattern}.safetensors")
    return {name: tensor for name, tensor in safetensors.torch.load_file(path).items() if name.startswith("model.")}


def symbols(run: Path) -> list[str]:
    state = json.loads((run / "tokenizer.json").read_text(encoding="utf-8"))["state"]
    return [*state["symbols"], *(["unknown"] if state["unknown"] else [])]


@pytest.mark.parametrize("options", [(), ("--set", "tokenizer.name=byte"), ("--set", "tokenizer.min_count=2")])
def test_the_same_text_goes_on_where_it_was(
    options: tuple[str, ...], train: Gen, texts: dict[str, Path], tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(texts["same"], first, *options)[0] == 0
    code, _, err = train(texts["same"], second, *options, "--init-from", first, "--seed", 5)
    assert code == 0, err
    assert f"begun with the weights of {first}, step 1: {256 if 'tokenizer.name=byte' in options else 19}" in err
    assert " are known, 0 are new; the optimizer starts anew" in err
    begun, expected = weights(second, "last-step000000"), weights(first, "best-*")
    assert all(torch.equal(begun[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("embedding", [0, 4])
@pytest.mark.parametrize(
    ("before", "after"), [pytest.param("same", "other", marks=pytest.mark.slow), ("rare", "other"), ("same", "rare")]
)
def test_known_symbols_keep_their_rows(
    before: str, after: str, embedding: int, train: Gen, texts: dict[str, Path], tmp_path: Path
) -> None:
    first, second, fresh = (tmp_path / name for name in ("first", "second", "fresh"))
    options = ("--set", "tokenizer.min_count=2", "--set", f"model.embedding={embedding}")
    options += ("--set", f"model.ngram_length={4 if embedding else 0}")  # n-grams need an embedding
    assert train(texts[before], first, *options)[0] == 0
    assert train(texts[after], fresh, *options, "--seed", 5)[0] == 0
    code, _, err = train(texts[after], second, *options, "--seed", 5, "--init-from", first)
    assert code == 0, err
    old, new = symbols(first), symbols(second)
    shared = [symbol for symbol in new if symbol in old]
    assert f"{len(shared)} symbols are known, {len(new) - len(shared)} are new" in err
    assert (old != new) and len(shared) > 10
    old_weights, new_weights, fresh_weights = (
        weights(first, "best-*"),
        weights(second, "last-step000000"),
        weights(fresh, "last-step000000"),
    )
    axes = {"model.head.weight": 0, "model.head.bias": 0}
    if embedding:
        axes |= {"model.embedding.weight": 0, "model.ngram_hash.codes": 0}
    else:
        axes["model.lstms.0.weight_ih_l0"] = 1
    for name, tensor in new_weights.items():
        if name not in axes:
            assert torch.equal(tensor, old_weights[name])
            continue
        for token, symbol in enumerate(new):
            expected = (
                old_weights[name].select(axes[name], old.index(symbol))
                if symbol in old
                else fresh_weights[name].select(axes[name], token)
            )
            assert torch.equal(tensor.select(axes[name], token), expected), (name, symbol)


class SilentLSTM(lstm.LSTMModel):
    """A model that does not say which tensors have a row for each symbol."""

    symbol_axes = None  # type: ignore[assignment]


def test_what_does_not_fit_is_refused(
    train: Gen, gen: Gen, texts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(texts["same"], first)[0] == 0
    init_from = ("--init-from", first)
    fails(1, train(texts["other"], second, "--set", "model.hidden=16", *init_from), "another size", "config.toml")
    fails(1, train(texts["other"], second, "--set", "model.layers=1", *init_from), "another size (its tensors lstms.1.")
    fails(
        1,
        train(texts["other"], second, "--set", "tokenizer.name=byte", *init_from),
        "its tokenizer is 'char', not 'byte'",
    )
    fails(1, train(texts["other"], second, "--init-from", tmp_path / "none"), "no such run")
    fails(2, gen("train", "--resume", "--run", first, *init_from), "init_from begins a new run, resume goes on")
    monkeypatch.setattr(lstm, "LSTMModel", SilentLSTM)
    fails(1, train(texts["other"], second, *init_from), "the model 'lstm' has no method symbol_axes")
    assert not second.exists()
    assert train(texts["same"], second, *init_from)[0] == 0
