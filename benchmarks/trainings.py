"""What the benchmarks of training share: texts that are cut, presets spelled out, and one `gen train` a figure."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gentext.data.corpus import read_corpus
from gentext.resolve import read_preset
from gentext.run import Run

Values = Mapping[str, Any]


def spelled_out(preset: str, **above: Any) -> dict[str, Any]:
    """Return a preset's settings but for its budget, as ``section.key``: what is typed, no rule changes."""
    sections = {name: table for name, table in read_preset(preset).items() if name != "run"}
    return {f"{section}.{key}": value for section, table in sections.items() for key, value in table.items()} | above


def steps_for(characters: int, values: Values) -> int:
    """Return the steps that read so many characters."""
    return max(1, characters // (values["batcher.batch"] * values["batcher.length"]))


def write_part(source: str, path: Path, begin: float, end: float) -> Path:
    """Write a part of a text, by shares of its characters, to a file."""
    text = read_corpus(source).text
    path.write_text(text[int(len(text) * begin) : int(len(text) * end)], encoding="utf-8", newline="")
    return path


class Failed(Exception):
    """A training that ended with an error: its last line."""


def run_training(text: Path | str, run: Path, values: Values, *words: str, ranks: int = 1) -> dict[str, Any]:
    """Train in a process of its own, without export, into the folder ``run``; return what it measured.

    ``seconds`` are those of training steps: no start, no evaluation, no checkpoint. Raises Failed.
    """
    program = [sys.executable, "-m"]
    if ranks > 1:
        program += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m", "--"]
    command = [*program, "gentext", "train", str(text), "--run", str(run), "--no-export"]
    command += [*as_words(settings(values)), *words]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failed((done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1])
    return measured(run)


def measured(run: Path) -> dict[str, Any]:
    """Return a finished run's steps, losses, rate and seconds, and its measurements on the way."""
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


def temporary() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for runs; it goes away at the end."""
    return tempfile.TemporaryDirectory(prefix="gentext-")


def whole_numbers(text: str) -> list[int]:
    """Read an option such as ``--seeds 1,2,3``."""
    return [int(one) for one in text.split(",")]


def settings(values: Values) -> list[str]:
    """Return values as ``section.key=value``."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]


def as_words(settings: Sequence[str]) -> list[str]:
    """Return settings as words of a command line."""
    return [word for one in settings for word in ("--set", one)]
