"""The one way to say something to a person: a line on stderr. Text goes to stdout, nothing else."""

from __future__ import annotations

import contextlib
import sys


def say(line: str) -> None:
    """Print one line on stderr; a stderr that is gone is no reason to stop."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def warn(line: str) -> None:
    """Say something that the user may want to act on."""
    say(f"gen: warning: {line}")
