"""What a newcomer does first: each preset's network is trained, exported in each precision, and writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Gen

import gentext
from gentext.runs.resolve import preset_names

#: Widths at which matrix products are large enough for int8; test_precision.py has such a network of preset small.
SIZES = ("--set", "model.hidden=48", "--set", "batcher.batch=2", "--set", "batcher.length=8", "--set", "run.threads=1")
EMBEDDING = ("--set", "model.embedding=16")


@pytest.mark.parametrize("preset", preset_names())
def test_each_precision_writes(preset: str, tiny_text: Path, tmp_path: Path, gen: Gen) -> None:
    words = [*SIZES, *(EMBEDDING if preset != "notebook" else ()), "--steps", 2, "--no-export", "--device", "cpu"]
    code, _, err = gen("train", tiny_text, "--run", tmp_path / "run", "--preset", preset, *words)
    assert code == 0, err
    for precision in ("fp32", "fp16", "int8"):
        folder = tmp_path / precision
        code, _, err = gen("export", tmp_path / "run", "-o", folder, "--precision", precision, "--limit", 1)
        assert code == 0, err
        model = gentext.load(folder / "generator.onnx")
        assert model.bundle.card["precision"] == precision, err
        code, out, err = gen("sample", folder / "generator.onnx", "--length", 40, "--seed", 1)
        assert code == 0 and out == model.write(length=40, seed=1) + "\n" and len(out) == 41, err
