"""Shows the progress of training: a line for each measurement, and on a terminal a bar below the lines."""

from __future__ import annotations

import math
import sys
from typing import Any

from gentext.console import is_quiet, say
from gentext.events import Progress
from gentext.hookspecs import hookimpl
from gentext.run import Run
from gentext.settings import Settings

#: rich's progress bar of each run in training, and the id of its task.
_progress_bars: dict[Run, tuple[Any, Any]] = {}


@hookimpl
def run_started(run: Run, settings: Settings, progress: Progress) -> None:
    if progress.step:
        say(f"going on at step {progress.step} of {progress.total_steps}")
    if sys.stderr.isatty() and not is_quiet():
        _progress_bars[run] = _start_bar(progress)


@hookimpl
def step_done(run: Run, progress: Progress) -> None:
    if run in _progress_bars:
        bar, task = _progress_bars[run]
        text = f"loss {progress.loss:.3f}  {_symbols_per_second(progress):,.0f} symbols/s"
        bar.update(task, completed=progress.step, text=text)


@hookimpl
def evaluated(run: Run, progress: Progress) -> None:
    say(
        f"step {progress.step}/{progress.total_steps}  loss {progress.loss:.4f}  held out {progress.val_loss:.4f}  "
        f"{_symbols_per_second(progress):,.0f} symbols/s"
    )


@hookimpl
def run_closed(run: Run) -> None:
    if run in _progress_bars:
        bar, _ = _progress_bars.pop(run)
        bar.stop()


def _symbols_per_second(progress: Progress) -> float:
    """Return symbols a second."""
    return progress.tokens / progress.seconds if progress.seconds else math.nan


def _start_bar(progress: Progress) -> tuple[Any, Any]:
    from rich import progress as rich
    from rich.console import Console

    bar = rich.Progress(
        rich.BarColumn(),
        rich.TextColumn("step {task.completed}/{task.total}  {task.fields[text]}"),
        rich.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("", total=progress.total_steps, completed=progress.step, text="")
    bar.start()
    return bar, task
