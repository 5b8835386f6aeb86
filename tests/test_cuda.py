"""The CUDA paths, where there is a GPU: training, sampling with onnxruntime, and that both are really used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gentext.plugins.session import cuda_there

Gen = Callable[..., tuple[int, str, str]]

trains = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here")
samples = pytest.mark.skipif(cuda_there() is not None, reason=f"no CUDA for onnxruntime here: {cuda_there()}")


@trains
@pytest.mark.parametrize("precision", ["fp32", "fp16", "auto"])
def test_training_on_the_gpu(
    precision: str, gen: Gen, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: list[Any] = ["--set", "model.hidden=64", "--device", "cuda", "--precision", precision, "--steps", 40]
    code, _, err = gen("train", tiny_text, "--run", tmp_path / "run", *options)
    assert code == 0, err
    assert torch.cuda.get_device_name() in err
    assert (tmp_path / "run" / "model.onnx").exists(), "what the GPU learned agrees with the file made on the CPU"


@samples
@pytest.mark.parametrize("name", ["model.onnx", "generator.onnx"])
def test_sampling_on_the_gpu(name: str, gen: Gen, tiny_run: Path) -> None:
    words = ("sample", tiny_run / name, "--seed", 1, "--length", 60)
    code, text, err = gen(*words, "--device", "cuda")
    assert code == 0, err
    _, again, _ = gen(*words, "--device", "cuda")
    assert text == again
    assert len(text) == 61
