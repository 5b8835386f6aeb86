"""Writes event files into RUN/tensorboard, where `run.tensorboard` asks for them. (tensorboard)

The numbers are those of metrics.jsonl. A run that goes on begins another file, which says from which
step on the former ones no longer count: TensorBoard shows no point twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gentext.errors import RunError
from gentext.events import Progress
from gentext.hookspecs import hookimpl
from gentext.plugins.observers.metrics import EVERY
from gentext.plugins.observers.samples import LENGTH
from gentext.run import EVENTS, Run
from gentext.settings import Settings

#: Their order is that of the steps at which they begin; TensorBoard knows them by the second word.
NAME = "events.tfevents.{:010d}"


@dataclasses.dataclass
class _Open:
    """What is held while a run is trained."""

    writer: Any
    tokens: int
    seconds: float
    """Where the last rate was taken: the next one is that of the stretch since then."""


_open: dict[Run, _Open] = {}


@hookimpl
def run_started(run: Run, settings: Settings, progress: Progress) -> None:
    if not settings.tensorboard:
        return
    from tensorboard.compat.proto.event_pb2 import SessionLog
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder, name = run.path / EVENTS, NAME.format(progress.step)
    with _told(run):
        folder.mkdir(exist_ok=True)
        for late in folder.glob(f"{NAME.partition('{')[0]}*"):
            if late.name >= name:  # begun after the checkpoint: all of it comes again
                late.unlink()
        _open[run] = _Open(RecordWriter((folder / name).open("wb")), progress.tokens, progress.seconds)
        _write(run, 0, file_version="brain.Event:2")
        if progress.step:
            _write(run, progress.step + 1, session_log=SessionLog(status=SessionLog.START))
        else:
            _write(run, 0, summary=_text("config", json.dumps(run.config, indent=2)))


@hookimpl
def step_done(run: Run, progress: Progress) -> None:
    if run in _open and progress.step % EVERY == 0:
        held = _open[run]
        numbers = {"loss/training": progress.loss, "rate": progress.rate}
        if progress.seconds > held.seconds:
            numbers["symbols_per_second"] = (progress.tokens - held.tokens) / (progress.seconds - held.seconds)
        held.tokens, held.seconds = progress.tokens, progress.seconds
        _write(run, progress.step, summary=_numbers(numbers))


@hookimpl
def evaluated(run: Run, progress: Progress) -> None:
    if run in _open and progress.val_loss is not None:
        _write(run, progress.step, summary=_numbers({"loss/held_out": progress.val_loss}))
        if progress.sample is not None:
            _write(run, progress.step, summary=_text("sample", progress.sample(LENGTH)))


@hookimpl
def checkpoint_saved(run: Run, progress: Progress, path: Path) -> None:
    """A checkpoint must not outlive the points that led to it; and whoever watches sees them."""
    if run in _open:
        with _told(run):
            _open[run].writer.flush()


@hookimpl
def run_closed(run: Run) -> None:
    if run in _open:
        with contextlib.suppress(OSError):  # a full disk, told before
            _open.pop(run).writer.close()


def _numbers(numbers: dict[str, float]) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=tag, simple_value=number) for tag, number in numbers.items()])


def _text(tag: str, text: str) -> Any:
    """Return a text as it is: indented, since TensorBoard reads Markdown."""
    from tensorboard.plugins.text.summary_v2 import text_pb

    return text_pb(tag, "\n".join(f"    {line}" for line in text.splitlines()))


def _write(run: Run, step: int, **what: Any) -> None:
    from tensorboard.compat.proto.event_pb2 import Event

    with _told(run):
        _open[run].writer.write(Event(wall_time=time.time(), step=step, **what).SerializeToString())


@contextlib.contextmanager
def _told(run: Run) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        problem = f"{run.path / EVENTS}: cannot be written ({error.strerror}); the last checkpoint is kept"
        raise RunError(problem) from error
