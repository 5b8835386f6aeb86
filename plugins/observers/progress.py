"""Shows the progress of training: a line for each measurement, and a bar with rate and time left."""

from __future__ import annotations

import contextlib
import math

from gentext.console import Bar, progress, say
from gentext.events import Progress
from gentext.hookspecs import hookimpl
from gentext.run import Run
from gentext.settings import Settings

#: The bar of each run in training, and the context that closes it.
_bars: dict[Run, tuple[Bar, contextlib.ExitStack]] = {}


@hookimpl
def run_started(run: Run, settings: Settings, progress: Progress) -> None:
    if progress.step:
        say(f"going on at step {progress.step} of {progress.total_steps}")
    _bars[run] = _open_bar(progress)


@hookimpl
def step_done(run: Run, progress: Progress) -> None:
    if run in _bars:
        bar, _ = _bars[run]
        bar.advance(
            1,
            f"step {progress.step:,} of {progress.total_steps:,}, loss {progress.loss:.3f}, "
            f"{_symbols_per_second(progress):,.0f} symbols/s",
        )
        if progress.step == progress.total_steps:  # what is measured after it has bars of its own
            run_closed(run)


@hookimpl
def evaluated(run: Run, progress: Progress) -> None:
    has_loss = progress.val_loss is not None and math.isfinite(progress.val_loss)
    held_out = f"held out {progress.val_loss:.4f}  " if has_loss else ""
    say(
        f"step {progress.step}/{progress.total_steps}  loss {progress.loss:.4f}  {held_out}"
        f"{_symbols_per_second(progress):,.0f} symbols/s"
    )


@hookimpl
def run_closed(run: Run) -> None:
    if run in _bars:
        _, context = _bars.pop(run)
        context.close()


def _symbols_per_second(progress: Progress) -> float:
    """Return symbols a second."""
    return progress.tokens / progress.seconds if progress.seconds else math.nan


def _open_bar(state: Progress) -> tuple[Bar, contextlib.ExitStack]:
    context = contextlib.ExitStack()
    return context.enter_context(progress("training", state.total_steps, done=state.step)), context
