"""What messages advise: in the words of Python, or in those of the command line.

`gen` says at its start that it is the command line; whatever else calls gentext is a Python program.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_is_command_line = False


@contextlib.contextmanager
def command_line() -> Iterator[None]:
    """Have messages speak of flags and commands."""
    global _is_command_line
    previous, _is_command_line = _is_command_line, True
    try:
        yield
    finally:
        _is_command_line = previous


def by_caller(command_wording: str, python_wording: str) -> str:
    """Return the wording that suits the caller."""
    return command_wording if _is_command_line else python_wording
