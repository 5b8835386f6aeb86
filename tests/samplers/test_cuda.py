"""The CUDA paths, where there is a GPU: training, sampling with onnxruntime, and that both are really used."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from compiled_model import EVERY_LINK, CompiledModel, request, written

from gentext.export.proto import serialize_model
from gentext.generation.compiled import generate_compiled
from gentext.plugins.samplers.cuda_generator import UnrolledGenerator
from gentext.plugins.samplers.onnx import OnnxGenerator, OnnxSampler
from gentext.plugins.samplers.runtime import cuda_problem

Gen = Callable[..., tuple[int, str, str]]

trains = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here")
samples = pytest.mark.skipif(cuda_problem() is not None, reason=f"no CUDA for onnxruntime here: {cuda_problem()}")


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
    assert "32 positions without control flow" in err
    assert (tmp_path / "run" / "generator-unrolled.onnx").exists()


@samples
@pytest.mark.parametrize("name", ["model.onnx", "generator.onnx"])
def test_sampling_on_the_gpu(name: str, gen: Gen, tiny_run: Path) -> None:
    words = ("sample", tiny_run / name, "--seed", 1, "--length", 60)
    code, text, err = gen(*words, "--device", "cuda")
    assert code == 0, err
    _, second_text, _ = gen(*words, "--device", "cuda")
    assert text == second_text
    assert len(text) == 61


@pytest.fixture
def captured(compiled_model: CompiledModel) -> OnnxGenerator:
    """A generator that captures its graphs."""
    compiler = compiled_model.compiler(compiled_model.chain(*EVERY_LINK))
    (compiled_model.folder / "captured.onnx").write_bytes(serialize_model(compiler.compile_loop()))
    (compiled_model.folder / "captured-unrolled.onnx").write_bytes(serialize_model(compiler.compile_unrolled(32)))
    opened = OnnxSampler().open(compiled_model.folder / "captured.onnx", "cuda")
    assert isinstance(opened, OnnxGenerator) and isinstance(opened.model, UnrolledGenerator)
    return opened


@samples
@pytest.mark.parametrize("rows", [1, 5, 64, 100])
def test_captured_graphs_write_what_the_loop_writes(
    compiled_model: CompiledModel, captured: OnnxGenerator, rows: int
) -> None:
    """In four calls and more, so that the graphs of both directions are captured and replayed."""
    text_request = request(compiled_model.chain(*EVERY_LINK), rows, 200)
    inside = written(captured.generate(text_request), rows)
    assert captured.model.positions == 32, "it did not fall back"
    assert inside == written(captured.generate(text_request), rows)
    loop = written(generate_compiled(captured.session, captured.bundle, text_request), rows)
    assert inside[1] == loop[1]
    different = [row for row in range(rows) if inside[0][row] != loop[0][row]]
    assert len(different) <= rows // 20


@samples
def test_neighbours_of_a_bucket_change_nothing(compiled_model: CompiledModel, captured: OnnxGenerator) -> None:
    chain = compiled_model.chain(*EVERY_LINK)
    batch = request(chain, 60, 100)
    params = {link: {name: array[:9] for name, array in arrays.items()} for link, arrays in batch.params.items()}
    first_rows = dataclasses.replace(batch, primes=batch.primes[:9], seeds=batch.seeds[:9], params=params)
    assert written(captured.generate(first_rows), 9)[0] == written(captured.generate(batch), 60)[0][:9]
    assert captured.model.positions == 32
