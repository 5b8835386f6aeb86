"""Which precision the generator of a run is exported in: a rule on the held-out losses of fp32 and int8."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from conftest import Gen
from helpers import fails
from hypothesis import given
from hypothesis import strategies as st

from gentext.errors import UsageError
from gentext.export.job import ExportJob, ExportOptions, options_of_run
from gentext.export.network.int8 import to_int8
from gentext.export.precision import LossReport, count_measured_symbols
from gentext.library import bench
from gentext.plugins.samplers.session import open_file
from gentext.run import open_run
from gentext.settings import Settings

#: Sizes whose matrix products are large enough for int8.
SIZES = ("--set", "model.hidden=48", "--set", "model.embedding=16", "--set", "run.threads=1", "--device", "cpu")
#: What int8 costs, and what is exported then.
CHOICES = [
    pytest.param(-0.1, "int8", marks=pytest.mark.slow),
    (0.0019, "int8"),
    pytest.param(0.0021, "fp32", marks=pytest.mark.slow),
    (math.nan, "fp32"),
]
CHOICE = re.compile(r"held out (\d\.\d{4}) \(fp32\), (\d\.\d{4}) \(int8, noisy: few symbols\): int8 exported")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_text: Path, gen: Gen) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    code, _, err = gen("train", tiny_text, "--run", path, *SIZES, "--steps", 30, "--verbose")
    assert code == 0, err
    (path / "err.txt").write_text(err, encoding="utf-8")
    return path


def card_of(path: Path) -> dict[str, Any]:
    return open_file(path / "generator.onnx", "cpu").bundle.card


def evaluated_loss(gen: Gen, path: Path, text: Path) -> str:
    code, out, err = gen("eval", path, text)
    assert code == 0, err
    return out.split()[0]


def test_training_ends_with_int8_and_the_losses_that_gen_eval_measures(run: Path, gen: Gen, tmp_path: Path) -> None:
    [losses] = CHOICE.findall((run / "err.txt").read_text(encoding="utf-8"))
    code, _, err = gen("export", run, "-o", tmp_path, "--precision", "fp32")
    assert code == 0 and "held out" not in err, err
    text = run / "held_out.txt"
    assert losses == (evaluated_loss(gen, tmp_path / "generator.onnx", text), evaluated_loss(gen, run, text))
    card = card_of(run)
    assert (card["precision"], card["precision_noisy"]) == ("int8", True)
    # One layer reads n-grams and its own output, the other both layers; the head reads the last one.
    vocab_size = open_file(run / "generator.onnx", "cpu").bundle.vocab_size
    matrices = (4 * 32 + 48) * 4 * 48 + 2 * 48 * 4 * 48 + 48 * vocab_size
    assert 4 * matrices <= card_of(tmp_path)["weight_bytes"] < 4.4 * matrices
    assert matrices <= card["weight_bytes"] < 1.4 * matrices, "a byte for each weight, four for each scale and bias"
    assert [f"{loss:.4f}" for loss in card["precision_losses"].values()] == list(losses)
    code, out, err = gen("info", run)
    assert code == 0, err
    assert re.search(r"generator: +int8 \(held out fp32 \d\.\d+, int8 \d\.\d+\)", out)


@pytest.mark.parametrize(("cost", "precision"), CHOICES)
def test_the_loss_alone_decides(
    run: Path, gen: Gen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cost: float, precision: str
) -> None:
    report = LossReport("int8", 1.5 + cost, 1.5, 30_000, 40_000)
    monkeypatch.setattr(ExportJob, "measure", lambda *_: report)
    code, _, err = gen("export", run, "-o", tmp_path)
    assert code == 0, err
    assert (
        f"held out over the first 30,000 of 40,000 symbols 1.5000 (fp32), {1.5 + cost:.4f} (int8): {precision}" in err
    )
    card = card_of(tmp_path)
    assert card["precision"] == precision
    assert card["precision_losses"]["fp32"] == 1.5


def test_a_named_limit_counts(run: Path, gen: Gen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExportJob, "measure", lambda *_: LossReport("int8", 1.504, 1.5, 30_000, 30_000))
    for options, expected in (
        (("--precision", "auto"), "fp32"),
        (("--precision", "int8"), "int8"),
        (("--limit", "0.01"), "int8"),
    ):
        code, _, err = gen("export", run, "-o", tmp_path, *options)
        assert code == 0 and card_of(tmp_path)["precision"] == expected, (options, err)
    fails(1, gen("export", run, "-o", tmp_path, "--precision", "int8", "--limit", "0.001"), "int8 costs +0.0040")


def test_the_setting_of_a_run_counts_when_it_is_exported(run: Path, gen: Gen, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    config = (copy / "config.toml").read_text(encoding="utf-8")
    assert 'export_precision = "auto"' in config
    (copy / "config.toml").write_text(config.replace('export_precision = "auto"', 'export_precision = "fp32"'))
    code, _, err = gen("export", copy)
    assert code == 0 and "held out" not in err, err
    assert card_of(copy)["precision"] == "fp32"


def test_the_option_and_the_notebook(
    gen: Callable[..., Any], tiny_text: Path, tmp_path: Path, tiny_options: tuple[str, ...]
) -> None:
    small_steps = (*tiny_options, "--steps", 1, "--no-export")
    for name, options, expected in (
        ("option", ("--export-precision", "fp32"), "fp32"),
        ("notebook", ("--preset", "notebook"), "fp32"),
        ("both", ("--preset", "notebook", "--export-precision", "auto"), "auto"),
    ):
        code, _, err = gen("train", tiny_text, "--run", tmp_path / name, *options, *small_steps)
        assert code == 0, err
        assert open_run(tmp_path / name).config["run"]["export_precision"] == expected
    refused = gen("train", tiny_text, "--run", tmp_path / "refused", "--export-precision", "int4", *small_steps)
    fails(1, refused, "export_precision = 'int4': expected auto, fp32 or int8")


def test_what_cannot_be_compared_stays_in_fp32(tiny_run: Path, run: Path, gen: Gen, tmp_path: Path) -> None:
    code, _, err = gen("export", tiny_run, "-o", tmp_path)
    assert code == 0 and "fp32 exported; int8: the model's step has no matrix product" in err, err
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    (copy / "held_out.txt").unlink()
    code, _, err = gen("export", copy)
    assert code == 0 and "fp32 exported;" in err and "held_out.txt: missing; nothing is held out" in err, err
    assert "precision_losses" not in card_of(copy)


@pytest.fixture
def faulty_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the conversion to int8 give a graph whose sums have the wrong type."""

    def convert(*arguments: Any) -> onnx.ModelProto:
        step = to_int8(*arguments)
        cast = next(node for node in step.graph.node if node.op_type == "Cast")
        cast.attribute[0].i = onnx.TensorProto.INT32
        return step

    monkeypatch.setattr("gentext.export.building.to_int8", convert)


#: What a report of a defect says: what happened, and all that its finder needs.
REPORT = ("int8: a defect of gentext", "report this line", "InferenceError", "op_type:Mul", "torch 2.", "name=lstm")


def test_a_defect_of_a_conversion_is_reported_as_one(run: Path, gen: Gen, tmp_path: Path, faulty_int8: None) -> None:
    report = (*REPORT, "hidden=48", "19 symbols; chain match top_k")
    fails(1, gen("export", run, "-o", tmp_path, "--precision", "int8"), *report)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", [pytest.param("auto", marks=pytest.mark.slow), "fastest"])
def test_what_a_defect_leaves_is_exported(
    precision: str, run: Path, gen: Gen, tmp_path: Path, faulty_int8: None
) -> None:
    code, _, err = gen("export", run, "-o", tmp_path, "--precision", precision)
    assert code == 0 and card_of(tmp_path)["precision"] == "fp32", err
    [warning] = [line for line in err.splitlines() if line.startswith("gen: warning: ")]
    assert all(fragment in warning for fragment in (*REPORT, "hidden=48")), err
    assert ("fp32 exported; int8 failed" in err) == (precision == "auto")


@pytest.mark.slow
def test_a_precision_with_a_defect_is_not_measured(
    run: Path, gen: Gen, faulty_int8: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = bench.prepare_measurement
    monkeypatch.setattr(bench, "prepare_measurement", lambda opened, batch: writing(opened, batch, 0.005))
    monkeypatch.setattr(bench, "BATCH_SIZES", (1,))
    monkeypatch.setattr(bench, "REPEATS", 1)
    code, out, err = gen("bench", run, "--threads", 1)
    assert code == 0 and "generator int8 is not measured. int8: a defect of gentext" in err, err
    assert "generator fp32" in out and "generator int8" not in out


def test_what_is_for_cuda_stays_in_fp32() -> None:
    assert options_of_run(Settings(device="cuda")) == ExportOptions("fp32")
    assert options_of_run(Settings(device="cpu"), unroll=2) == ExportOptions("fp32", unroll=2)
    assert options_of_run(Settings(device="cpu")) == ExportOptions("auto")
    assert options_of_run(Settings(device="cuda", export_precision="int8")).precision == "int8"


def test_unknown_precision_is_no_int8_under_another_name() -> None:
    with pytest.raises(UsageError, match="precision = 'int7': expected auto, fp32, int8, fp16 or fastest"):
        ExportOptions("int7")


@given(st.integers(1, 10**7), st.integers(0, 10**10))
def test_measuring_is_bounded(held_out_symbols: int, parameters: int) -> None:
    symbols = count_measured_symbols(held_out_symbols, parameters)
    assert 0 < symbols <= min(held_out_symbols, 200_000)
    assert symbols <= 2_000 or symbols * parameters <= 800_000_000_000
    assert symbols in (held_out_symbols, 200_000) or symbols >= 2_000
