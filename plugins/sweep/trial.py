"""One trial of a sweep, in a process of its own: all of its memory comes back, however it ends.

The parent writes lines to the child's stdin: first the job, as JSON, then ``go`` or ``prune`` in
answer to each measurement, and ``stop`` at any time. When stdin ends, the parent has died, and the
child ends at once. The child writes JSON objects, one a line, whose ``event`` is one of

- ``ready``: the trial's lock is held; or ``busy``: another process trains this trial
- ``measured``: ``step``, ``share`` of the budget, ``val_loss``; waits for the answer
- ``finished``: ``result``; or ``pruned``; or ``stopped``: what is saved can go on
- ``failed``: ``reason``, and whether the ``disk`` was to blame
"""

from __future__ import annotations

import _thread
import contextlib
import dataclasses
import errno
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gentext import run as runs
from gentext.config import ConfigTable
from gentext.console import say
from gentext.errors import GenError, TrainingStopped, reason
from gentext.events import Progress
from gentext.hookspecs import hookimpl
from gentext.manager import host
from gentext.resolve import TrainOptions

#: Seconds that the child of a parent that was just killed may need to end.
PATIENCE = 10
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


@dataclasses.dataclass(frozen=True)
class Job:
    """What a trial is to do. The paths are as the parent sees them, in the same current folder."""

    corpus: str
    run: str
    preset: str
    config: str
    settings: list[str]
    lock: str


class Trial:
    """The parent's end: a child at work."""

    def __init__(self, job: Job, log: Path) -> None:
        self._log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gentext.plugins.sweep.trial"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                start_new_session=True,  # Ctrl-C is the parent's, which passes it on
            )
        self._tell(json.dumps(dataclasses.asdict(job)))

    def events(self) -> Iterator[ConfigTable]:
        """Yield what the child says, up to its end; one that dies without a word has failed."""
        said: ConfigTable = {}
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            yield said
        code = self._process.wait()
        if said.get("event") not in ("busy", "finished", "pruned", "stopped", "failed"):
            yield {"event": "failed", "reason": f"{_death(code)}; its last words are in {self._log}", "disk": False}

    def answer(self, prune: bool) -> None:
        """Answer a measurement."""
        self._tell("prune" if prune else "go")

    def stop(self) -> None:
        """Ask the child to save and to end."""
        self._tell("stop")

    def kill(self) -> None:
        """End the child at once, if it has not ended yet."""
        self._process.kill()
        self._process.communicate()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        data = line.encode() + b"\n"
        with contextlib.suppress(OSError):  # it has died: `events` says so
            # Past the buffer: Ctrl-C may come, and have `stop` told, in the middle of another line's way through it.
            while data:
                data = data[os.write(self._process.stdin.fileno(), data) :]


def _death(code: int) -> str:
    if code == -getattr(signal, "SIGKILL", 9):
        return "killed, as systems do when memory is short"
    return f"ended by signal {-code}" if code < 0 else f"ended with status {code}"


class _Parent:
    """The child's end; as a plugin, it passes on each measurement."""

    def __init__(self, channel: IO[str]) -> None:
        self.pruned = self.stopping = False
        self._channel = channel
        self._answers: queue.Queue[str] = queue.Queue()

    def listen(self) -> None:
        """Read what the parent writes; a thread's work."""
        for line in sys.stdin:
            if line.strip() == "stop":
                self.stopping = True
                _thread.interrupt_main()
            else:
                self._answers.put(line.strip())
        os._exit(1)  # the parent has died; training may be cut short at any time

    def say(self, event: str, **more: Any) -> None:
        print(json.dumps({"event": event, **more}), file=self._channel, flush=True)

    @hookimpl
    def evaluated(self, progress: Progress) -> None:
        share = progress.step / progress.total_steps
        self.say("measured", step=progress.step, share=share, val_loss=progress.val_loss)
        if self._answers.get() == "prune":
            self.pruned = True
            raise TrainingStopped("pruned: other trials were better at this point")


def main() -> None:
    """Be a child."""
    try:
        _work()
    finally:
        sys.stderr.flush()
        os._exit(0)  # no farewell: the thread that waits for the parent would hold it up


def _work() -> None:
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what plugins print is no word to the parent
    signal.signal(signal.SIGINT, signal.default_int_handler)  # `stop` comes as one, even below nohup
    parent = _Parent(channel)
    job = Job(**json.loads(sys.stdin.readline()))
    threading.Thread(target=parent.listen, daemon=True).start()
    from filelock import FileLock, Timeout

    lock = FileLock(job.lock)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        parent.say("busy")
        return
    try:
        parent.say("ready")
        result = _train(job, parent)
        parent.say("finished", result=result)
    except BaseException as error:
        _tell_end(parent, error)


def _train(job: Job, parent: _Parent) -> ConfigTable:
    from gentext.pipeline import train

    host().observe(parent)
    run = runs.Run(Path(job.run))
    if any(run.checkpoints.glob("last-*.safetensors")):
        options = TrainOptions(corpus=job.corpus, run=run.path, resume=True)
    else:
        if run.path.exists():  # killed before there was anything to keep
            shutil.rmtree(run.path)
        flags = {"export": False}
        options = TrainOptions(job.corpus, run.path, job.preset, Path(job.config), job.settings, flags)
    return dataclasses.asdict(train(options)[1])


def _tell_end(parent: _Parent, error: BaseException) -> None:
    """Say why training ended before its time."""
    if parent.pruned and isinstance(error, TrainingStopped):
        parent.say("pruned")
    elif parent.stopping and isinstance(error, TrainingStopped | KeyboardInterrupt):
        parent.say("stopped")
    else:
        if isinstance(error, GenError):
            say(f"gen: error: {error}")
        else:
            traceback.print_exception(error)
        blamed = _disk(error)
        parent.say("failed", reason=blamed or reason(error), disk=blamed is not None)


def _disk(error: BaseException) -> str | None:
    """Return what there is to say of a disk that failed; None for all that is the trial's own fault."""
    if isinstance(error, OSError) and error.errno in DISK:
        return f"{error.filename or 'a file'}: {error.strerror}"
    below = error.__cause__
    if isinstance(below, OSError) and below.errno in DISK:
        return str(error)
    return None if below is None else _disk(below)


if __name__ == "__main__":
    main()
