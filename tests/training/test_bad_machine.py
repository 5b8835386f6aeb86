"""A machine without a GPU, bf16 or enough memory: one clear line each, and nothing is left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import fails, raiser

from gentext.generation import generate
from gentext.plugins.pytorch import device
from gentext.plugins.samplers import runtime
from gentext.plugins.trainers.learner import Learner

Gen = Callable[..., tuple[int, str, str]]

BUDGET = ("--steps", "2", "--no-export")


@pytest.fixture
def no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which new runs would lie; the commands of a test must leave nothing there."""
    monkeypatch.setenv("GEN_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def test_cuda_where_there_is_none(
    gen: Gen, tiny_run: Path, tiny_text: Path, no_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(runtime, "_may_have_gpu", lambda: False)
    fails(1, gen("sample", tiny_run, "--device", "cuda"), "device = cuda: this", "use cpu or auto")
    for is_built, problem in ((True, "PyTorch sees no GPU"), (False, "this PyTorch is built without CUDA")):
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda is_built=is_built: is_built)
        for command in (["train", tiny_text], ["sample", tiny_run, "--sampler", "torch"]):
            fails(1, gen(*command, "--device", "cuda"), f"device = cuda: {problem}; use cpu or auto")
    assert not no_run.exists()


def test_bf16_where_the_cpu_has_none(
    gen: Gen, tiny_text: Path, tiny_options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "bf16_on_cpu", lambda: False)
    command = ("train", tiny_text, "--run", tmp_path / "run", *tiny_options, *BUDGET, "--precision")
    fails(
        1,
        gen(*command, "bf16", "--device", "cpu"),
        "precision = bf16: this CPU has no bf16 instructions",
        "fp32 or auto",
    )
    code, _, err = gen(*command, "auto", "--device", "cpu")
    assert (code, "1 thread, fp32" in err) == (0, True), err


def test_training_that_does_not_fit(
    gen: Gen,
    tiny_text: Path,
    tiny_options: tuple[str, ...],
    tiny_run: Path,
    no_run: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Enough for the weights and a checkpoint of them, but not for a step.
    monkeypatch.setattr(device, "memory_size", lambda device: 1591 * 18)
    command = ("train", tiny_text, *tiny_options, *BUDGET, "--device", "cpu")
    fails(1, gen(*command), "1,591 parameters need", "to train", "choose a smaller model")
    monkeypatch.setattr(device, "memory_size", lambda device: None)
    monkeypatch.setattr(Learner, "step", raiser(RuntimeError("DefaultCPUAllocator: can't allocate memory")))
    fails(1, gen(*command), "not enough memory", "batcher.batch")
    monkeypatch.setattr(generate, "Request", raiser(MemoryError("Unable to allocate 9 TiB")))
    fails(1, gen("sample", tiny_run, "--seed", 1), "not enough memory (Unable to allocate 9 TiB)")
    assert not no_run.exists()


@pytest.mark.parametrize("module", ["torch", "safetensors"])
def test_doctor_where_a_package_of_the_train_extra_is_missing(module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from gentext.cli.app import main; sys.exit(main(['doctor']))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "no: pip install 'gentext[train]'" in result.stdout
    assert "unknown without the packages for training" in result.stdout
