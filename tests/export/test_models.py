"""The generators that come with gentext: small, of this format, with an honest card, and found by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Gen
from helpers import fails

import gentext
from gentext.data.catalogue import CATALOGUE
from gentext.data.shipped import FIRST_MODEL, shipped_models
from gentext.errors import RunError
from gentext.exported.metadata import Bundle
from gentext.exported.onnx_file import read_metadata

MODELS = shipped_models()


def test_the_first_model_is_there() -> None:
    assert FIRST_MODEL in MODELS


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_small_and_has_a_card(name: str) -> None:
    path = MODELS[name]
    assert path.stat().st_size <= 1_200_000
    bundle = Bundle.from_metadata(read_metadata(path), path)  # refuses another format than today's
    card = bundle.card
    assert (bundle.kind, card["precision"]) == ("generator", "int8")
    assert card["license"].keys() == {"text", "weights"} and card["summary"] and card["edition"]
    assert card["corpus"].keys() == {"name", "sha256", "characters"}
    assert card["command"].startswith(f"gen train {card['corpus']['name']} ")
    assert CATALOGUE[card["corpus"]["name"]].license == card["license"]["text"]
    losses = card["precision_losses"]
    assert 0 < losses["int8"] - losses["fp32"] < 0.002
    content = path.read_bytes()
    for folder in (Path.home(), Path.cwd(), Path(sys.prefix)):
        assert len(folder.parts) < 2 or str(folder).encode() not in content


@pytest.mark.parametrize("name", MODELS)
def test_every_command_takes_the_name(name: str, gen: Gen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, text, err = gen("sample", name, "--length", 60, "--seed", 1)
    assert code == 0 and len(text) == 61, err
    model = gentext.load(name)
    assert model.path == MODELS[name]
    assert model.write(length=60, seed=1) == text[:-1]
    code, out, err = gen("info", name)
    assert code == 0 and "weights MIT" in out, err
    (tmp_path / "text.txt").write_text("To be, or not to be, that is the question:\n" * 3)
    code, out, err = gen("eval", name, "text.txt")
    assert code == 0 and 0 < float(out.split()[0]) < 3, err
    fails(1, gen("eval", name), "no held-out text beside it; name a text file")
    fails(1, gen("sample", name, "--sampler", "torch"), "the torch sampler reads a run folder")


def test_models_are_listed(gen: Gen) -> None:
    code, out, err = gen("models")
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(MODELS)
    code, out, err = gen("models", "--json")
    assert code == 0, err
    assert {report["name"]: report["bytes"] for report in json.loads(out)} == {
        name: path.stat().st_size for name, path in MODELS.items()
    }


def test_a_run_of_that_name_goes_first(
    gen: Gen, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fails(1, gen("sample", f"./missing/{FIRST_MODEL}"), "no such run or file")
    shutil.copytree(tiny_run, tmp_path / FIRST_MODEL)
    assert gentext.load(FIRST_MODEL).path == Path(FIRST_MODEL)


def test_who_has_no_run_learns_of_the_model(gen: Gen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fails(1, gen("sample"), "no run in", "make one with: gen train", f"gen sample {FIRST_MODEL}")
    with pytest.raises(RunError, match=f"Did you mean '{FIRST_MODEL}'"):
        gentext.load(FIRST_MODEL[:-1])


def test_the_model_writes_without_pytorch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules |= dict.fromkeys(('torch', 'onnx', 'safetensors', 'matplotlib', 'filelock', 'pooch'));"
        f"from gentext.cli.app import main; sys.exit(main(['sample', {FIRST_MODEL!r}, '--length', '20']))"
    )
    environment = {**os.environ, "GEN_PLUGINS": ""}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0 and len(process.stdout) == 21, process.stderr
