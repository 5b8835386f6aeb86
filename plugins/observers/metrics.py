"""Writes metrics.jsonl: a line every ten steps, one a measurement, and one at the end."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from gentext.events import Progress
from gentext.hookspecs import hookimpl
from gentext.interfaces import FitResult
from gentext.run import METRICS, Run, append_line, write_text
from gentext.settings import Settings

EVERY = 10


@hookimpl
def run_started(run: Run, settings: Settings, progress: Progress) -> None:
    """Cut the log back to the checkpoint that training goes on from."""
    rows = [row for row in run.read_metrics() if row["step"] <= progress.step and not row.get("finished")]
    write_text(run.path / METRICS, "".join(_line(row) + "\n" for row in rows))


@hookimpl
def step_done(run: Run, progress: Progress) -> None:
    if progress.step % EVERY == 0:
        row = {"step": progress.step, "epoch": progress.epoch, "loss": progress.loss, "rate": progress.rate}
        _append(run, row | {"symbols": progress.tokens, "seconds": round(progress.seconds, 3)})


@hookimpl
def evaluated(run: Run, progress: Progress) -> None:
    row = {
        "step": progress.step,
        "epoch": progress.epoch,
        "loss": progress.loss,
        "val_loss": progress.val_loss,
    }
    _append(run, row | {"symbols": progress.tokens, "seconds": round(progress.seconds, 3)})


@hookimpl
def checkpoint_saved(run: Run, progress: Progress, path: Path) -> None:
    """A checkpoint must not outlive the lines that led to it."""
    with (run.path / METRICS).open("ab") as file:
        os.fsync(file.fileno())


@hookimpl
def run_finished(run: Run, settings: Settings, result: FitResult) -> None:
    row = dataclasses.asdict(result)
    rate = row.pop("symbols_per_second")
    _append(run, {"step": row.pop("steps"), "finished": True, **row, "symbols_per_second": round(rate)})


def _append(run: Run, row: dict[str, Any]) -> None:
    append_line(run.path / METRICS, _line(row))


def _line(row: dict[str, Any]) -> str:
    return json.dumps({key: None if value != value else value for key, value in row.items()})
