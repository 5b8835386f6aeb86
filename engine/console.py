"""Lines for the user, on stderr. Commands print only their results on stdout: a model's text, tables, JSON."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextvars import ContextVar

#: The list that gets the lines instead of stderr, or None. Each thread has its own.
_collected_lines: ContextVar[list[str] | None] = ContextVar("collected", default=None)


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """Collect the lines of this thread in the list that the context returns, instead of printing them."""
    lines: list[str] = []
    reset_handle = _collected_lines.set(lines)
    try:
        yield lines
    finally:
        _collected_lines.reset(reset_handle)


def is_quiet() -> bool:
    """Return whether lines of this thread are collected instead of printed."""
    return _collected_lines.get() is not None


def mute(is_muted: bool) -> None:
    """Stop printing lines in this thread, or start again. Of several processes that train together, one prints."""
    _collected_lines.set([] if is_muted else None)


def say(line: str) -> None:
    """Print one line on stderr; when stderr is closed, the line is lost and the program goes on."""
    lines = _collected_lines.get()
    if lines is not None:
        lines.append(line)
        return
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def warn(line: str) -> None:
    """Print a line that the user may want to act on."""
    say(f"gen: warning: {line}")
