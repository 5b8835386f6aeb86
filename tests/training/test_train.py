"""Training: the loss falls, a killed run ends bit for bit as if nothing had happened, and what goes wrong is told."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers import one_line, raiser, start

from gentext.errors import MissingExtra, RunError
from gentext.interfaces import FitResult
from gentext.plugins.models.lstm import LSTMConfig, LSTMModel
from gentext.plugins.observers import curves
from gentext.plugins.observers.curves import build_chart
from gentext.run import Run, create_run
from gentext.runs import lock
from gentext.runs.lock import RunLock
from gentext.runs.model_description import make_card
from gentext.settings import Settings

pytestmark = pytest.mark.usefixtures("warm_processes", "whole_samples")
#: Two epochs, with all that a checkpoint must bring back: dropout, offsets, warm-up, two moments, averaged weights, and
#: the scale of the logits.
OPTIONS = (
    *("--set", "model.hidden=8", "--set", "model.embedding=4", "--set", "model.dropout=0.3"),
    *("--set", "model.dropout_mask=window", "--set", "model.symbol_dropout=0.02", "--set", "model.weight_dropout=0.1"),
    *("--set", "model.input_noise=0.02", "--set", "trainer.average=ema", "--set", "trainer.average_decay=0.8"),
    *("--set", "trainer.optimizer=muon", "--set", "trainer.weight_decay=0.1"),
    *("--set", "trainer.decay_schedule=falling", "--set", "trainer.calibration=60"),
    *("--set", "batcher.batch=5", "--set", "batcher.length=20"),
    *("--set", "trainer.eval_every=15", "--set", "trainer.warmup=5", "--set", "trainer.rate=0.02"),
    *("--set", "run.threads=1", "--no-export"),
)
STEPS = ("--steps", "40")
KILLED = Path(__file__).parents[1] / "killed.py"
#: Loses its way at once, and so stops early.
STRAYS = ("--set", "trainer.rate=1", "--set", "trainer.patience=2", "--set", "trainer.eval_every=5", "--steps", "300")


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock says."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clock = ("seconds", "symbols_per_second")
    return [{key: value for key, value in row.items() if key not in clock} for row in rows]


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def assert_same(run: Path, reference: Path) -> None:
    """Two runs ended alike: logs, samples, checkpoints, and every bit of every tensor."""
    assert metrics(run) == metrics(reference)
    assert (run / "samples.txt").read_bytes() == (reference / "samples.txt").read_bytes()
    assert names(run) == names(reference)
    for name in names(run):
        tensors, expected = (safetensors.torch.load_file(path / "checkpoints" / name) for path in (run, reference))
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[key], expected[key]) for key in expected), name
    assert not [*run.rglob("*.tmp")]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(" ".join(f"{n % 7 * 'ab'}{'cde'[n % 3]}.\n"[n % 2 :] for n in range(330))[:2600])
    return path


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, gen: Callable[..., Any], text: Path) -> Path:
    """A run that nobody disturbs."""
    run = tmp_path_factory.mktemp("reference") / "run"
    code, _, err = gen("train", text, "--run", run, *OPTIONS, *STEPS)
    assert code == 0, err
    return run


def test_loss_falls_and_files_are_there(reference: Path) -> None:
    rows = metrics(reference)
    measured = {row["step"]: row["val_loss"] for row in rows if "val_loss" in row and "finished" not in row}
    assert list(measured) == [15, 30, 40]
    assert measured[40] < measured[30] < measured[15] < 2.5
    assert [row["step"] for row in rows if "rate" in row] == [10, 20, 30, 40]
    assert rows[-1]["finished"]
    assert rows[-1]["val_loss"] == pytest.approx(min(measured.values()), abs=0.02)
    best = min(measured, key=lambda step: measured[step])
    assert rows[-1]["best_step"] == best == 40
    tail = {step: f"step{step:06d}-val{loss:.4f}.safetensors" for step, loss in measured.items()}
    assert names(reference) == sorted([f"best-{tail[best]}", f"last-{tail[30]}", f"last-{tail[40]}"])
    samples = (reference / "samples.txt").read_text()
    assert samples.count("=== step ") == 3
    for name in ("config.toml", "tokenizer.json", "held_out.txt", "curves.png"):
        assert (reference / name).stat().st_size > 0
    assert not (reference / "model.onnx").exists()


def test_chart_shows_the_losses_on_the_way_and_the_final_one(reference: Path) -> None:
    """The final loss is a point of its own: the measurements on the way read less of the held-out text."""
    rows = Run(reference).read_metrics()
    (axes,) = build_chart("a run", rows).axes
    lines = {str(line.get_label()): list(line.get_ydata()) for line in axes.get_lines()}
    assert lines["held out"] == [row["val_loss"] for row in rows[:-1] if row.get("val_loss")]
    assert lines["held out, all of it as one stream"] == [rows[-1]["val_loss"]]
    assert [text.get_text() for text in axes.texts] == [f"{rows[-1]['val_loss']:.4f}"]
    (axes,) = build_chart("before the end", rows[:-1]).axes
    assert "held out, all of it as one stream" not in {line.get_label() for line in axes.get_lines()}


def test_ctrl_c_while_the_last_chart_is_drawn_comes_after_it(reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within matplotlib it could become a ValueError."""
    drawn_charts = []

    def interrupt_and_draw(name: str, rows: list[dict[str, Any]]) -> Any:
        signal.raise_signal(signal.SIGINT)
        drawn_charts.append(name)
        return build_chart(name, rows)

    monkeypatch.setattr(curves, "build_chart", interrupt_and_draw)
    result = FitResult(steps=40, val_loss=2.0, train_loss=2.0, best_step=40, symbols_per_second=1.0)
    run = Run(reference)
    with pytest.raises(KeyboardInterrupt):
        curves.run_finished(run, Settings(), result)
    assert drawn_charts == [reference.name]


#: Where runs are killed.
MOMENTS = {
    "before anything but step 0 is saved": ("step_done", 7),
    "measured and logged in part": ("evaluated", 15),
    "written, but not yet in its place": ("last", 30),
    "in its place, but not yet the best": ("best", 40),  # the last of them: nothing that comes makes up for it
    "saved, but not yet said": ("checkpoint_saved", 30),
    "after the last line of the log": ("end", 0),
}


@pytest.fixture(scope="module")
def strayed(tmp_path_factory: pytest.TempPathFactory, gen: Callable[..., Any], text: Path) -> Path:
    """A run that stops early."""
    run = tmp_path_factory.mktemp("strayed") / "run"
    code, _, err = gen("train", text, "--run", run, *OPTIONS, *STRAYS)
    assert code == 0, err
    return run


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, text: Path, strayed: Path) -> dict[str, Path]:
    """Runs that were killed, by their moment; the first was resumed and killed again."""
    folder = tmp_path_factory.mktemp("killed")
    runs = {moment: folder / str(index) for index, moment in enumerate([*MOMENTS, "strays"])}
    jobs = [
        (["train", str(text), "--run", str(runs[moment]), *OPTIONS, *STEPS], *hook_and_step)
        for moment, hook_and_step in MOMENTS.items()
    ]
    jobs.append((["train", "--resume", "--run", str(folder / "0")], "step_done", 22))
    near_the_end = metrics(strayed)[-1]["step"] - 2
    jobs.append((["train", str(text), "--run", str(runs["strays"]), *OPTIONS, *STRAYS], "step_done", near_the_end))
    done = subprocess.run([sys.executable, KILLED], input=json.dumps(jobs), capture_output=True, text=True)
    assert done.stdout.split() == [str(-signal.SIGKILL)] * len(jobs), done.stderr
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_run_ends_bit_for_bit(
    gen: Callable[..., Any], reference: Path, killed: dict[str, Path], moment: str
) -> None:
    code, _, err = gen("train", "--resume", "--run", killed[moment])
    assert code == 0, err
    assert "not bit for bit" not in err
    assert_same(killed[moment], reference)


@pytest.mark.slow
def test_early_stop_resumes_too(gen: Callable[..., Any], strayed: Path, killed: dict[str, Path]) -> None:
    last = metrics(strayed)[-1]
    assert 10 < last["step"] == last["best_step"] + 10 < 300
    for _ in range(2):  # the second time there is nothing left to do
        code, _, err = gen("train", "--resume", "--run", killed["strays"])
        assert code == 0, err
        assert_same(killed["strays"], strayed)


def test_curve_has_both_losses_and_their_errors(reference: Path) -> None:
    curve = Run(reference).read_curve()
    assert [measurement.step for measurement in curve] == [15, 30, 40]
    assert [measurement.symbols for measurement in curve] == [1500, 3000, 4000]
    for measurement in curve:
        assert abs(measurement.train_loss - measurement.val_loss) < 0.5
        assert 0 < measurement.train_error < 0.5
    assert Run(reference).read_curve(30) == curve[:2]
    assert (make_card(Run(reference), LSTMModel(LSTMConfig(hidden=8), 9))["curve"])[-1]["step"] == 40


def unfinished(reference: Path, run: Path) -> Path:
    """A copy of a run without its last checkpoint: ten of its steps must be taken once more."""
    shutil.copytree(reference, run)
    for path in run.glob("checkpoints/*step000040*"):
        path.unlink()
    return run


@pytest.mark.slow
def test_two_at_once_write_one_log(tmp_path: Path, reference: Path) -> None:
    run = unfinished(reference, tmp_path / "run")
    processes = [start("train", "--resume", "--run", run) for _ in range(2)]
    errors = [process.communicate(timeout=60)[1].decode() for process in processes]
    codes = [process.returncode for process in processes]
    assert 0 in codes, errors
    for code, err in zip(codes, errors, strict=True):
        if code:  # else it waited a moment, and found nothing left to do
            one_line(err, f"{run}: another process trains this run")
    assert_same(run, reference)


@pytest.mark.slow
def test_run_in_training_is_refused_until_its_process_ends(
    tmp_path: Path, gen: Callable[..., Any], text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    process = start("train", text, "--run", run, *OPTIONS, "--steps", 100_000)
    try:
        end = time.monotonic() + 60
        while not [*run.glob("checkpoints/last-*")]:
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.05)
        with monkeypatch.context() as patch:
            patch.setattr(lock, "LOCK_TIMEOUT", 0)
            for arguments in (["--run", run], [text, "--run", run]):
                code, _, err = gen("train", "--resume", *arguments)
                assert code == 1
                one_line(err, f"{run}: another process trains this run; wait for its end, or name another folder")
        assert process.poll() is None
    finally:
        process.kill()  # as the system does: nothing can be tidied up
        process.communicate()
    with RunLock() as run_lock:
        run_lock.acquire(run)


def test_lock_is_taken_before_anything_is_read(
    tmp_path: Path, gen: Callable[..., Any], reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LOCK_TIMEOUT", 0)
    run = unfinished(reference, tmp_path / "run")
    (run / "config.toml").write_text("damaged")
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with RunLock() as run_lock:
        run_lock.acquire(run)
        code, _, err = gen("train", "--resume", "--run", run)
        assert code == 1
        one_line(err, "another process trains this run")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files
    code, _, err = gen("train", "--resume", "--run", run)
    assert code == 1
    one_line(err, "config.toml: not valid TOML")


def test_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error in (OSError(errno.ENOLCK, "No locks available"), NotImplementedError("no flock")):
        monkeypatch.setattr("filelock.FileLock.acquire", raiser(error))
        with RunLock() as run_lock:
            run_lock.acquire(tmp_path)
        assert f"gen: warning: {tmp_path}: this file system has no locks" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "filelock", None)
    with RunLock() as run_lock, pytest.raises(MissingExtra, match=r"gentext\[train\]"):
        run_lock.acquire(tmp_path)


def test_each_of_many_new_runs_has_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEN_RUNS", str(tmp_path / "runs"))
    with ThreadPoolExecutor(8) as threads:
        runs = [*threads.map(lambda _: create_run(None, "text"), range(8))]
    assert len({run.path for run in runs}) == 8

    def create(_: int) -> bool:
        try:
            create_run(tmp_path / "run", "text")
        except RunError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(create, range(8))) == 1


def test_damaged_checkpoint_falls_back(tmp_path: Path, gen: Callable[..., Any], reference: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    older, newer = (run / "checkpoints" / name for name in names(run) if name.startswith("last"))
    newer.write_bytes(newer.read_bytes()[:-50])
    code, _, err = gen("train", "--resume", "--run", run)
    assert code == 0, err
    assert f"{newer.name}: damaged" in err
    assert "going on from the one before, step 30" in err
    assert_same(run, reference)
    for path in (older, newer):
        path.write_bytes(b"no checkpoint")
    code, _, err = gen("train", "--resume", "--run", run)
    assert code == 1
    assert "no checkpoint can be read" in err


@pytest.mark.parametrize("every", [1, 50])
def test_lost_loss_ends_training(tmp_path: Path, gen: Callable[..., Any], text: Path, every: int) -> None:
    run = tmp_path / "run"
    reckless = ("--set", f"trainer.eval_every={every}", "--set", "trainer.rate=1e35", "--set", "trainer.clip=0")
    code, _, err = gen("train", text, "--run", run, *OPTIONS, *reckless, "--set", "trainer.warmup=0", *STEPS)
    assert code == 1
    [line] = [line for line in err.splitlines() if "error" in line]
    assert f"the last good checkpoint is step 0 in {run}" in line
    assert "(trainer.rate=" in line
    assert names(run) == ["last-step000000.safetensors"]
    assert all(row["val_loss"] is not None for row in metrics(run) if "val_loss" in row)


def test_rate_that_is_too_high_ends_training(tmp_path: Path, gen: Callable[..., Any], text: Path) -> None:
    run = tmp_path / "run"
    code, _, err = gen("train", text, "--run", run, *OPTIONS, "--set", "trainer.rate=300", *STEPS)
    assert code == 1
    line = one_line(err, "the held-out loss became", "after step 15; the last good checkpoint is step 0")
    assert "Train anew with a lower rate (trainer.rate=0.003)" in line
    assert names(run) == ["last-step000000.safetensors"]


def test_another_text_is_refused(tmp_path: Path, gen: Callable[..., Any], reference: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other.txt"
    shutil.copytree(reference, run)
    other.write_text("another text" * 300)
    code, _, err = gen("train", other, "--resume", "--run", run)
    assert code == 1
    assert "was trained on another text: 'words' with sha256" in err
    assert_same(run, reference)
