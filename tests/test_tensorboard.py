"""Event files for TensorBoard, read with TensorBoard's own reader."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import fails
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

KILLED = Path(__file__).with_name("killed.py")


def options(text: Path, run: Path, tiny: tuple[str, ...], *more: str) -> list[str]:
    evaluate = ("--set", "trainer.eval_every=15", "--no-export", "--tensorboard", "--steps", "40")
    return ["train", str(text), "--run", str(run), *tiny, *evaluate, *more]


def points(run: Path) -> dict[str, list[tuple[int, Any]]]:
    """What TensorBoard shows of a run: for each name its steps and values; a rate of work only its steps."""
    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    reader.Reload()
    shown = {tag: [(one.step, one.value) for one in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
    shown["symbols_per_second"] = [(step, None) for step, _ in shown["symbols_per_second"]]
    for tag in reader.Tags()["tensors"]:
        shown[tag.partition("/")[0]] = [(one.step, one.tensor_proto.string_val[0]) for one in reader.Tensors(tag)]
    return shown


def test_numbers_are_those_of_the_log(
    gen: Callable[..., Any], tiny_text: Path, tiny_options: tuple[str, ...], tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    code, _, err = gen(*options(tiny_text, whole, tiny_options))
    assert code == 0, err
    shown = points(whole)
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    for tag, field in (("loss/training", "rate"), ("loss/held_out", "val_loss"), ("rate", "rate")):
        key = "loss" if tag == "loss/training" else field
        wanted = [(row["step"], row[key]) for row in rows if field in row and not row.get("finished")]
        assert [step for step, _ in shown[tag]] == [step for step, _ in wanted] != []
        assert [one for _, one in shown[tag]] == pytest.approx([one for _, one in wanted])
    samples = (whole / "samples.txt").read_text()
    for _, one in shown["sample"]:
        assert "\n".join(line[4:] for line in one.decode().splitlines()) in samples
    assert b"eval_every" in shown["config"][0][1]
    # Killed after a measurement that no checkpoint holds, and once more: the points are those of the whole run.
    jobs = [(options(tiny_text, cut, tiny_options), "evaluated", 30)]
    jobs += [(["train", "--resume", "--run", str(cut)], "step_done", step) for step in (25, 28)]
    done = subprocess.run([sys.executable, KILLED], input=json.dumps(jobs), capture_output=True, text=True)
    assert done.stdout.split() == ["-9"] * 3, done.stderr
    code, _, err = gen("train", "--resume", "--run", cut)
    assert code == 0, err
    again = points(cut)
    assert [step for step, _ in again.pop("config")] == [step for step, _ in shown.pop("config")] == [0]
    assert again == shown


def test_without_the_extra_nothing_begins(
    gen: Callable[..., Any],
    tiny_text: Path,
    tiny_options: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    result = gen(*options(tiny_text, tmp_path / "run", tiny_options))
    fails(1, result, "run.tensorboard needs", "pip install 'gentext[tensorboard]'")
    assert not (tmp_path / "run").exists()
