"""How messages name options and functions: as Python has them, or as the command line has them.

`gen` says at its start that it is the command line; whatever else calls gentext is a Python program.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_is_command_line = False


@contextlib.contextmanager
def command_line() -> Iterator[None]:
    """Have messages name flags and commands."""
    global _is_command_line
    previous, _is_command_line = _is_command_line, True
    try:
        yield
    finally:
        _is_command_line = previous


def by_caller(command_wording: str, python_wording: str) -> str:
    """Return the wording that suits the caller."""
    return command_wording if _is_command_line else python_wording


def option(name: str, setting: object = None) -> str:
    """Return an option of a command, or the argument of its function: ``--val-frac 0``, or ``val_frac=0``."""
    flag = f"--{name.replace('_', '-')}"
    if setting is None:
        return by_caller(flag, name)
    return by_caller(flag if setting is True else f"{flag} {setting}", f"{name}={setting!r}")


def resume_call(run: object) -> str:
    """Return the command, or the call, that goes on with the run in a folder."""
    return by_caller(f"gen train --resume --run {run}", f"gentext.train(run={str(run)!r}, resume=True)")
