"""One trial of a sweep, as its parent sees it: a child process that runs `gentext.plugins.sweep.worker`.

Each trial runs in its own process, so that all of its memory is freed, however it ends. The parent writes lines to the
child's stdin: first the job, as JSON, then ``go`` or ``prune`` as the answer to each measurement, and ``stop`` at any
time. When stdin ends, the parent has died, and the child ends at once. The child writes JSON objects to its stdout,
one a line, whose ``event`` is one of

- ``ready``: the child holds the trial's lock; or ``busy``: another process trains this trial
- ``measured``: ``step``, ``share`` of the budget, ``val_loss``; the child waits for the answer
- ``finished``: ``result``; or ``pruned``; or ``stopped``: a checkpoint is saved, from which training can go on
- ``failed``: ``reason``, and whether the ``disk`` caused it
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from gentext.config import ConfigTable

#: Events after which the child ends.
LAST_EVENTS = ("busy", "finished", "pruned", "stopped", "failed")


@dataclasses.dataclass(frozen=True)
class Job:
    """The task of a trial. Parent and child have the same current folder, to which the paths may be relative."""

    corpus: str
    run: str
    """Folder of the run."""
    preset: str
    config: str
    """The TOML file that all trials share."""
    settings: list[str]
    """``section.key=value`` texts of this trial."""
    lock: str
    """The lock file that the child holds as long as it lives."""
    records: ConfigTable | None = None
    """The fields of `gentext.runs.record_options.RecordOptions`; None: the corpus is one text."""
    val: str | None = None
    """What is held out instead of a part of the corpus."""


class Trial:
    """A child process that trains, and the pipes to it."""

    def __init__(self, job: Job, log_path: Path) -> None:
        self._log_path = log_path
        with log_path.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gentext.plugins.sweep.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                start_new_session=True,  # a Ctrl-C reaches the parent alone, which calls `stop`
            )
        self._send_line(json.dumps(dataclasses.asdict(job)))

    def events(self) -> Iterator[ConfigTable]:
        """Yield the child's events, up to its end; a child that dies without a last event has failed."""
        event: ConfigTable = {}
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            yield event
        exit_status = self._process.wait()
        if event.get("event") not in LAST_EVENTS:
            reason = f"{_cause_of_death(exit_status)}; its last words are in {self._log_path}"
            yield {"event": "failed", "reason": reason, "disk": False}

    def answer(self, *, prune: bool) -> None:
        """Answer a measurement."""
        self._send_line("prune" if prune else "go")

    def stop(self) -> None:
        """Ask the child to save and to end."""
        self._send_line("stop")

    def kill(self) -> None:
        """End the child at once, if it has not ended yet."""
        self._process.kill()
        self._process.communicate()

    def _send_line(self, line: str) -> None:
        assert self._process.stdin is not None
        unsent_bytes = line.encode() + b"\n"
        with contextlib.suppress(OSError):  # the child has died, which `events` reports
            # Not through the buffer of stdin: a Ctrl-C may call `stop` while another line is being written to it.
            while unsent_bytes:
                unsent_bytes = unsent_bytes[os.write(self._process.stdin.fileno(), unsent_bytes) :]


def _cause_of_death(exit_status: int) -> str:
    if exit_status == -getattr(signal, "SIGKILL", 9):
        return "killed, as systems do when memory is short"
    return f"ended by signal {-exit_status}" if exit_status < 0 else f"ended with status {exit_status}"
