"""Writes metrics.jsonl: a line every ten steps, a line for each measurement, and one at the end."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

from gentext.events import Progress
from gentext.files.atomic import failed_write
from gentext.hookspecs import hookimpl
from gentext.interfaces import FitResult
from gentext.run import METRICS_FILE, Run, append_line, write_text
from gentext.settings import Settings

#: Steps between two lines.
LOG_EVERY = 10


@hookimpl
def run_started(run: Run, settings: Settings, progress: Progress) -> None:
    """Drop the lines of steps after the checkpoint from which training continues."""
    rows = [row for row in run.read_metrics() if row["step"] <= progress.step and not row.get("finished")]
    write_text(run.path / METRICS_FILE, "".join(_format_line(row) + "\n" for row in rows))


@hookimpl
def step_done(run: Run, progress: Progress) -> None:
    if progress.step % LOG_EVERY == 0:
        _append_row(run, _progress_row(progress, rate=progress.rate))


@hookimpl
def evaluated(run: Run, progress: Progress) -> None:
    if progress.measurement is not None:
        _append_row(run, {**_progress_row(progress), **dataclasses.asdict(progress.measurement)})


@hookimpl
def checkpoint_saved(run: Run, progress: Progress, path: Path) -> None:
    """Force the lines to the disk: it must not lose them and keep the checkpoint."""
    path = run.path / METRICS_FILE
    try:
        with path.open("ab") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise failed_write(path, error, kept="the last checkpoint") from error


@hookimpl
def run_finished(run: Run, settings: Settings, result: FitResult) -> None:
    row = dataclasses.asdict(result)
    del row["curve"]  # each of its measurements has a line
    rate = row.pop("symbols_per_second")
    _append_row(run, {"step": row.pop("steps"), "finished": True, **row, "symbols_per_second": round(rate)})


def _progress_row(progress: Progress, **fields: float | None) -> dict[str, Any]:
    return {
        "step": progress.step,
        "epoch": progress.epoch,
        "loss": progress.loss,
        **fields,
        "symbols": progress.tokens,
        "seconds": round(progress.seconds, 3),
    }


def _append_row(run: Run, row: dict[str, Any]) -> None:
    append_line(run.path / METRICS_FILE, _format_line(row))


def _format_line(row: dict[str, Any]) -> str:
    """Return a row as JSON, which has neither NaN nor infinity: they become null."""
    return json.dumps(
        {
            key: None if isinstance(number, float) and not math.isfinite(number) else number
            for key, number in row.items()
        }
    )
