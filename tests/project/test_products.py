"""What tests share: a product is made once, and a trace only stands for a model that is the same."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from helpers import raiser
from products import Products
from traces import Indescribable, describe_value, describe_weights, shared_trace

from gentext.export.network import model as exporter
from gentext.plugins.models.lstm import LSTMConfig, LSTMModel
from gentext.plugins.pytorch import build_model, load_best_checkpoint
from gentext.run import open_run
from gentext.runs.model_description import describe


def test_a_product_is_made_once(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    workers = [Products(tmp_path, tmp_path_factory) for _ in range(2)]
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "begun").touch(exist_ok=False)
        if len(made) == 1:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        workers[0].find(make, "key")
    folders = [worker.find(make, "key") for worker in workers]
    assert folders == made[1:] * 2 == made[:1] * 2  # what was begun is made anew
    assert workers[1].find(make, "another key") != folders[0]
    assert workers[0].copy(make, "key") != folders[0] and len(made) == 3


def model(**options: Any) -> LSTMModel:
    torch.manual_seed(0)
    return LSTMModel(
        LSTMConfig(
            **{"hidden": 4, "layers": 2, "norm": True, "embedding": 2, "ngram_length": 3, "ngram_rows": 8} | options
        ),
        5,
    )


def test_a_trace_is_of_models_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    same, tied = model(), model()
    tied.norms[1] = tied.norms[0]
    models = (model(), same, tied, model(dropout=0.1), model(hidden=5))
    described = [repr((describe_value(one), describe_weights(one))) for one in models]
    assert described[0] == described[1] and len(set(described)) == 4

    class Child(LSTMModel):
        pass

    with pytest.raises(Indescribable):
        describe_value(Child(LSTMConfig(hidden=4), 5))
    for cls in (LSTMModel, type(same.ngram_hash), torch.nn.LSTM):
        with monkeypatch.context() as patch:
            patch.setattr(cls, "forward", raiser(RuntimeError()))
            with pytest.raises(Indescribable):
                describe_value(same)


@pytest.mark.slow
def test_a_shared_trace_has_the_weights_of_the_model_at_hand(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_run(tiny_run)
    trained = build_model(opened, load_best_checkpoint(opened))
    bundle, traced = describe(opened, trained), []
    trace = inspect.unwrap(exporter._trace_module)

    def trace_and_note(module: torch.nn.Module, *arguments: Any) -> onnx.ModelProto:
        traced.append(module)
        return trace(module, *arguments)

    monkeypatch.setattr(exporter, "_trace_module", shared_trace(trace_and_note, Products(tmp_path, tmp_path_factory)))
    for _ in range(2):
        exporter.export_model(trained, bundle)  # raises where the graph gives other logits than the model
        with torch.no_grad():
            trained.head.bias += 1
    assert len(traced) == 1
