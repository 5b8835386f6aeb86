"""Shared by the benchmarks of training: parts of texts, presets as typed settings, and runs of `gen train`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gentext.data.corpus import read_corpus
from gentext.run import Run
from gentext.runs.resolve import read_preset

#: Measures the whole held-out text, as the notebook does, however short the budget is.
WHOLE_HELD_OUT = ["run.held_out=1000000"]
#: Values by ``section.key``.
Values = Mapping[str, Any]


def preset_values(preset: str) -> dict[str, Any]:
    """Return what a preset sets for training, but for its budget. Typed settings are not changed by its rules."""
    sections = {name: table for name, table in read_preset(preset).items() if name not in ("run", "chain")}
    return {f"{section}.{key}": value for section, table in sections.items() for key, value in table.items()}


def steps_for(characters: int, values: Values) -> int:
    """Return the number of steps that read so many characters."""
    return max(1, characters // (values["batcher.batch"] * values["batcher.length"]))


def write_part(source: str, path: Path, begin: float, end: float) -> Path:
    """Write a part of a text to a file; ``begin`` and ``end`` are shares of its characters."""
    text = read_corpus(source).text
    path.write_text(text[int(len(text) * begin) : int(len(text) * end)], encoding="utf-8", newline="")
    return path


class TrainingFailed(Exception):
    """A training ended with an error; the message is the last line that it printed."""


def run_training(text: Path | str, run: Path, values: Values, *words: str, ranks: int = 1) -> dict[str, Any]:
    """Train in a process of its own, without export, into the folder ``run``; return its measurements.

    ``seconds`` are those of training steps: no start, no evaluation, no checkpoint. Raises TrainingFailed.

    :param words: more options of ``gen train``.
    :param ranks: the number of processes that train together.
    """
    program = [sys.executable, "-m"]
    if ranks > 1:
        program += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m", "--"]
    command = [*program, "gentext", "train", str(text), "--run", str(run), "--no-export"]
    command += [*as_words([*WHOLE_HELD_OUT, *settings(values)]), *words]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise TrainingFailed((done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1])
    return measurements(run)


def measurements(run: Path) -> dict[str, Any]:
    """Return a finished run's steps, losses, rate and seconds, and as ``curve`` its measurements on the way."""
    rows = Run(run).read_metrics()
    timed = [row for row in rows if "seconds" in row]
    end = rows[-1]
    return {
        "steps": end["step"],
        "characters": timed[-1]["symbols"],
        "val_loss": end["val_loss"],
        "train_loss": end["train_loss"],
        "characters_per_second": end["symbols_per_second"],
        "seconds": timed[-1]["seconds"],
        "curve": [row for row in timed if "val_loss" in row],
    }


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for runs, as a context that deletes it at the end."""
    return tempfile.TemporaryDirectory(prefix="gentext-")


def whole_numbers(text: str) -> list[int]:
    """Read an option such as ``--seeds 1,2,3``."""
    return [int(number) for number in text.split(",")]


def settings(values: Values) -> list[str]:
    """Return values as ``section.key=value`` texts."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]


def as_words(settings: Sequence[str]) -> list[str]:
    """Return settings as words of a command line."""
    return [word for setting in settings for word in ("--set", setting)]
