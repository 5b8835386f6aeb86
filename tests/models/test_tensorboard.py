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

pytestmark = pytest.mark.usefixtures("warm_processes", "whole_samples")
KILLED = Path(__file__).parents[1] / "killed.py"


def options(text: Path, run: Path, tiny: tuple[str, ...]) -> list[str]:
    evaluate = ("--set", "trainer.eval_every=15", "--no-export", "--tensorboard", "--steps", "40")
    return ["train", str(text), "--run", str(run), *tiny, *evaluate]


def points(run: Path) -> dict[str, list[tuple[int, Any]]]:
    """Return the steps and values that TensorBoard shows of a run, by their names; without the values of speeds."""
    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    reader.Reload()
    by_name: dict[str, list[tuple[int, Any]]] = {}
    for tag in reader.Tags()["scalars"]:
        by_name[tag] = [(event.step, event.value) for event in reader.Scalars(tag)]
    by_name["symbols_per_second"] = [(step, None) for step, _ in by_name["symbols_per_second"]]
    for tag in reader.Tags()["tensors"]:
        name = tag.partition("/")[0]
        by_name[name] = [(event.step, event.tensor_proto.string_val[0]) for event in reader.Tensors(tag)]
    return by_name


def test_numbers_are_those_of_the_log(
    gen: Callable[..., Any], tiny_text: Path, tiny_options: tuple[str, ...], tmp_path: Path
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    code, _, err = gen(*options(tiny_text, undisturbed, tiny_options))
    assert code == 0, err
    expected = points(undisturbed)
    rows = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    for tag, field in (("loss/training", "rate"), ("loss/held_out", "val_loss"), ("rate", "rate")):
        key = "loss" if tag == "loss/training" else field
        logged = [(row["step"], row[key]) for row in rows if field in row and not row.get("finished")]
        assert [step for step, _ in expected[tag]] == [step for step, _ in logged] != []
        assert [value for _, value in expected[tag]] == pytest.approx([value for _, value in logged])
    samples = (undisturbed / "samples.txt").read_text()
    for _, text in expected["sample"]:
        assert "\n".join(line[4:] for line in text.decode().splitlines()) in samples
    assert b"eval_every" in expected["config"][0][1]
    # Killed behind a measurement that no checkpoint holds, and twice more: the points are those of the undisturbed run.
    jobs = [(options(tiny_text, killed, tiny_options), "evaluated", 30)]
    jobs += [(["train", "--resume", "--run", str(killed)], "step_done", step) for step in (25, 28)]
    done = subprocess.run([sys.executable, KILLED], input=json.dumps(jobs), capture_output=True, text=True)
    assert done.stdout.split() == ["-9"] * 3, done.stderr
    notes = [killed / "tensorboard" / f"events.tfevents.{name}" for name in ("notes", "9999999999.txt")]
    for path in notes:
        path.write_text("no events")
    code, _, err = gen("train", "--resume", "--run", killed)
    assert code == 0, err
    for path in notes:
        assert path.read_text() == "no events"
        path.unlink()  # TensorBoard would read it
    actual = points(killed)
    assert [step for step, _ in actual.pop("config")] == [step for step, _ in expected.pop("config")] == [0]
    assert actual == expected


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
