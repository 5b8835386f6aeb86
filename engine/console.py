"""The one way to say something to a person: a line on stderr. Text goes to stdout, nothing else."""

from __future__ import annotations

import contextlib
import sys

_muted = False


def mute(on: bool) -> None:
    """Say nothing from now on, or speak again: of several processes that train together one speaks."""
    global _muted
    _muted = on


def say(line: str) -> None:
    """Print one line on stderr; a stderr that is gone is no reason to stop."""
    if _muted:
        return
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def warn(line: str) -> None:
    """Say something that the user may want to act on."""
    say(f"gen: warning: {line}")
