"""Trains in processes that kill themselves, without a chance to tidy up. A script for tests.

Reads a JSON list of (arguments of gen, moment, step) and prints the exit status of each. A moment is
a life-cycle hook; or ``last`` or ``best``, the rename of that checkpoint; or ``rename``, a rename by its number
from 0; or ``end``.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from typing import Any

import matplotlib.backends.backend_agg  # noqa: F401
import torch._dynamo  # noqa: F401  torch imports it late, and every child would pay for that

from gentext.cli.app import main
from gentext.events import Progress
from gentext.hookspecs import hookimpl
from gentext.manager import host


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Killer:
    """A plugin that ends the process in one hook of one step."""

    def __init__(self, hook: str, step: int) -> None:
        def kill(progress: Progress) -> None:
            if progress.step == step:
                die()

        setattr(self, hook, hookimpl(kill))


class AtTheEnd:
    """A plugin that ends the process when all is done but leaving."""

    @hookimpl
    def run_closed(self) -> None:
        die()


def prepare(moment: str, step: int) -> None:
    """Arrange for this process to die."""
    if moment in ("last", "best", "rename"):
        replace, numbers = os.replace, itertools.count()

        def rename(source: Any, target: Any) -> None:
            number = next(numbers)
            name = os.path.basename(target)
            if number == step if moment == "rename" else name.startswith(f"{moment}-step{step:06d}"):
                die()
            replace(source, target)

        os.replace = rename  # type: ignore[assignment]
    else:
        manager = host()._manager
        manager.register(AtTheEnd() if moment == "end" else Killer(moment, step))


if __name__ == "__main__":
    for arguments, moment, step in json.load(sys.stdin):
        child = os.fork()  # torch is loaded by now, but has started no threads
        if not child:
            prepare(moment, step)
            os._exit(100 + main(arguments))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
