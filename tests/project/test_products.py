"""What tests share: a product is made once, and a trace only stands for a model that is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import raiser
from products import Products
from traces import Indescribable, describe_value

from gentext.plugins.models.lstm import LSTMConfig, LSTMModel


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
    return LSTMModel(LSTMConfig(**{"hidden": 4, "embedding": 2, "ngram_length": 3, "ngram_rows": 8} | options), 5)


def test_a_trace_is_of_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    same, other_weight = model(), model()
    with torch.no_grad():
        other_weight.head.bias[2] += 1
    described = [repr(describe_value(one)) for one in (model(), same, other_weight, model(dropout=0.1))]
    assert described[0] == described[1] and len(set(described)) == 3

    class Child(LSTMModel):
        pass

    with pytest.raises(Indescribable):
        describe_value(Child(LSTMConfig(hidden=4), 5))
    for cls in (LSTMModel, type(same.ngram_hash), torch.nn.LSTM):
        with monkeypatch.context() as patch:
            patch.setattr(cls, "forward", raiser(RuntimeError()))
            with pytest.raises(Indescribable):
                describe_value(same)
