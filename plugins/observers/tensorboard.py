"""Writes event files into RUN/tensorboard, if `run.tensorboard` is true. (tensorboard)

The numbers are those of metrics.jsonl. A resumed run begins another file, with an event that makes TensorBoard drop
the points of earlier files from that step on, so that it shows no point twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gentext.events import Progress
from gentext.files.atomic import failed_write
from gentext.hookspecs import hookimpl
from gentext.plugins.observers.metrics import LOG_EVERY
from gentext.plugins.observers.samples import SAMPLE_LENGTH
from gentext.run import EVENTS_FOLDER, Run
from gentext.runs.removal import EVENT_FILE_NAME, find_gentext_files
from gentext.settings import Settings

#: Name of an event file, with the step at which it begins: TensorBoard reads the files in the order of their names.
#: It recognizes them by ``tfevents``.
FILE_NAME = "events.tfevents.{:010d}"


@dataclasses.dataclass
class _EventFile:
    """The open event file of a run in training."""

    writer: Any
    tokens: int
    """Tokens trained on up to the last point of the rate."""
    seconds: float
    """Seconds of training up to that point. The next rate is that of the steps since then."""


_event_files: dict[Run, _EventFile] = {}


@hookimpl
def run_started(run: Run, settings: Settings, progress: Progress) -> None:
    if not settings.tensorboard:
        return
    from tensorboard.compat.proto.event_pb2 import SessionLog
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder, name = run.path / EVENTS_FOLDER, FILE_NAME.format(progress.step)
    with _as_run_error(run):
        folder.mkdir(exist_ok=True)
        for file in find_gentext_files(folder, EVENT_FILE_NAME):
            if file.name >= name:  # it begins at or after the checkpoint, so all of it is written again
                file.unlink()
        writer = RecordWriter((folder / name).open("wb"))
        _event_files[run] = _EventFile(writer, progress.tokens, progress.seconds)
        _write_event(run, 0, file_version="brain.Event:2")
        if progress.step:
            _write_event(run, progress.step + 1, session_log=SessionLog(status=SessionLog.START))
        else:
            _write_event(run, 0, summary=_text_summary("config", json.dumps(run.config, indent=2)))


@hookimpl
def step_done(run: Run, progress: Progress) -> None:
    if run in _event_files and progress.step % LOG_EVERY == 0:
        file = _event_files[run]
        numbers = {"loss/training": progress.loss, "rate": progress.rate}
        seconds = progress.seconds - file.seconds
        if seconds > 0:
            numbers["symbols_per_second"] = (progress.tokens - file.tokens) / seconds
        file.tokens, file.seconds = progress.tokens, progress.seconds
        _write_event(run, progress.step, summary=_number_summary(numbers))


@hookimpl
def evaluated(run: Run, progress: Progress) -> None:
    if run in _event_files and progress.val_loss is not None:
        _write_event(run, progress.step, summary=_number_summary({"loss/held_out": progress.val_loss}))
        if progress.sample is not None:
            _write_event(run, progress.step, summary=_text_summary("sample", progress.sample(SAMPLE_LENGTH)))


@hookimpl
def checkpoint_saved(run: Run, progress: Progress, path: Path) -> None:
    """Write the points to the file: a kill must not lose them and keep the checkpoint."""
    if run in _event_files:
        with _as_run_error(run):
            _event_files[run].writer.flush()


@hookimpl
def run_closed(run: Run) -> None:
    if run in _event_files:
        with contextlib.suppress(OSError):  # a full disk, which was reported before
            _event_files.pop(run).writer.close()


def _number_summary(numbers: dict[str, float]) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=tag, simple_value=number) for tag, number in numbers.items()])


def _text_summary(tag: str, text: str) -> Any:
    """Return a text, indented: TensorBoard reads Markdown, which shows indented lines as they are."""
    from tensorboard.plugins.text.summary_v2 import text_pb

    return text_pb(tag, "\n".join(f"    {line}" for line in text.splitlines()))


def _write_event(run: Run, step: int, **content: Any) -> None:
    """Write an event; ``content`` is one of the fields of TensorBoard's protocol buffer `Event`."""
    from tensorboard.compat.proto.event_pb2 import Event

    with _as_run_error(run):
        _event_files[run].writer.write(Event(wall_time=time.time(), step=step, **content).SerializeToString())


@contextlib.contextmanager
def _as_run_error(run: Run) -> Iterator[None]:
    """Raise errors of the disk as RunError."""
    try:
        yield
    except OSError as error:
        raise failed_write(run.path / EVENTS_FOLDER, error, kept="the last checkpoint") from error
