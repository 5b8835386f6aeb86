"""The child process that trains one trial of a sweep; `gentext.plugins.sweep.trial` describes its pipes."""

from __future__ import annotations

import _thread
import dataclasses
import errno
import json
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import IO, Any

from gentext import run as runs
from gentext.config import ConfigTable
from gentext.console import report_error
from gentext.errors import GenError, TrainingStopped, reason
from gentext.events import Progress
from gentext.hookspecs import hookimpl
from gentext.manager import host
from gentext.plugins.sweep.trial import Job
from gentext.runs.record_options import RecordOptions
from gentext.runs.removal import discard_run
from gentext.runs.resolve import TrainOptions

#: Seconds to wait for the lock: the child of a parent that was just killed may need them to end.
LOCK_TIMEOUT = 10
#: Errors of the disk, which are no fault of the trial.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


class _Parent:
    """The pipes to the parent. It is also a plugin, which sends each measurement and waits for the answer."""

    def __init__(self, event_stream: IO[str]) -> None:
        self.is_pruned = self.stop_requested = False
        self._event_stream = event_stream
        self._parent_answers: queue.Queue[str] = queue.Queue()

    def listen(self) -> None:
        """Read the parent's lines until it ends; runs in a separate thread."""
        for line in sys.stdin:
            if line.strip() == "stop":
                self.stop_requested = True
                _thread.interrupt_main()
            else:
                self._parent_answers.put(line.strip())
        os._exit(1)  # the parent has died; a run can be resumed from its checkpoint, so ending at once is safe

    def send_event(self, event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **fields}), file=self._event_stream, flush=True)

    @hookimpl
    def evaluated(self, progress: Progress) -> None:
        share = progress.step / progress.total_steps
        self.send_event("measured", step=progress.step, share=share, val_loss=progress.val_loss)
        if self._parent_answers.get() == "prune":
            self.is_pruned = True
            raise TrainingStopped("pruned: other trials were better at this point")


def main() -> None:
    """Train the trial of the job that comes from stdin, and end the process."""
    try:
        _run_worker()
    finally:
        sys.stderr.flush()
        os._exit(0)  # an ordinary exit would wait for the thread that reads stdin


def _run_worker() -> None:
    event_stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of plugins goes to stderr, not among the events
    signal.signal(signal.SIGINT, signal.default_int_handler)  # for `interrupt_main`: a shell's background ignores it
    parent = _Parent(event_stream)
    job = Job(**json.loads(sys.stdin.readline()))
    threading.Thread(target=parent.listen, daemon=True).start()
    from filelock import FileLock, Timeout

    lock = FileLock(job.lock)
    try:
        lock.acquire(timeout=LOCK_TIMEOUT)
    except Timeout:
        parent.send_event("busy")
        return
    try:
        parent.send_event("ready")
        result = _train_trial(job, parent)
        parent.send_event("finished", result=result)
    except BaseException as error:
        _send_failure(parent, error)


def _train_trial(job: Job, parent: _Parent) -> ConfigTable:
    from gentext.training.pipeline import run_training

    host().observe(parent)
    run = runs.Run(Path(job.run))
    if any(run.checkpoints.glob("last-*.safetensors")):
        options = TrainOptions(corpus=job.corpus, run=run.path, resume=True)
    else:
        if run.path.exists():  # it was killed before its first checkpoint
            discard_run(run.path, f"{run.path.name}-kept")
        options = TrainOptions(
            corpus=job.corpus,
            run=run.path,
            preset=job.preset,
            config=Path(job.config),
            settings=job.settings,
            flags={"export": False},
            records=None if job.records is None else RecordOptions(**job.records),
            val=job.val,
        )
    _, result = run_training(options)
    return {name: number for name, number in dataclasses.asdict(result).items() if name != "curve"}


def _send_failure(parent: _Parent, error: BaseException) -> None:
    """Send the event that says why training ended early; a traceback or an error line goes to the log."""
    if parent.is_pruned and isinstance(error, TrainingStopped):
        parent.send_event("pruned")
    elif parent.stop_requested and isinstance(error, TrainingStopped | KeyboardInterrupt):
        parent.send_event("stopped")
    else:
        if isinstance(error, GenError):
            report_error(str(error))
        else:
            traceback.print_exception(error)
        disk_problem = _disk_problem(error)
        parent.send_event("failed", reason=disk_problem or reason(error), disk=disk_problem is not None)


def _disk_problem(error: BaseException) -> str | None:
    """Return the message for an error that a disk caused, directly or further up the chain; None for any other."""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return f"{error.filename or 'a file'}: {error.strerror}"
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno in DISK_ERRORS:
        return str(error)
    return None if cause is None else _disk_problem(cause)


if __name__ == "__main__":
    main()
