"""Temporary files and folders, which their process keeps locked, and the removal of those of a process that was killed.

The operating system releases the locks of a process that dies, however it dies. So whoever can lock a temporary file
knows that its process is gone. Where a system or a file system has no such locks, nothing is removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

#: The name of a temporary file: that of the file to be, and eight random characters.
TEMPORARY_FILE = re.compile(r"\.(.+)\.[0-9a-f]{8}\.gentext\.tmp", re.DOTALL)
#: The name that former versions gave, which locked no file.
_UNLOCKED_FILE = re.compile(r"\.(.+)\.[a-z0-9_]{8}\.tmp", re.DOTALL)
#: The name of a temporary folder, as `locked_folder` gives it.
TEMPORARY_FOLDER = re.compile(r"gentext-\w+\.gentext\.tmp")


def temporary_file_path(path: Path) -> Path:
    """Return a new name for the temporary file that becomes the file at ``path``, in the same folder."""
    return path.parent / f".{path.name}.{os.urandom(4).hex()}.gentext.tmp"


def temporary_file_target(name: str) -> str | None:
    """Return the name of the file that a temporary file was to become; None if the name is not that of one."""
    match = TEMPORARY_FILE.fullmatch(name) or _UNLOCKED_FILE.fullmatch(name)
    return match[1] if match else None


def lock(descriptor: int, path: Path) -> bool:
    """Lock a new temporary file or folder until its descriptor is closed.

    Returns False where another process removed it before it was locked; then make another one.
    """
    if fcntl is not None:
        with contextlib.suppress(OSError):  # this file system has no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    return path.exists()


@contextlib.contextmanager
def locked_folder(parent: Path) -> Iterator[Path]:
    """Make a temporary folder in another one, locked until the end of the context, when it is removed."""
    import tempfile  # which takes time at every start

    with contextlib.ExitStack() as stack:
        while True:
            folder = Path(tempfile.mkdtemp(prefix="gentext-", suffix=".gentext.tmp", dir=parent))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            if _lock_folder(folder, stack):
                break
        yield folder


def _lock_folder(folder: Path, stack: contextlib.ExitStack) -> bool:
    """Lock a new folder until the end of a context; return False where another process removed it meanwhile."""
    if fcntl is None:
        return True
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return False
    stack.callback(os.close, descriptor)
    return lock(descriptor, folder)


def remove_abandoned(folder: Path, pattern: re.Pattern[str]) -> None:
    """Remove the temporary files or folders of killed processes in a folder; ``pattern`` is that of their names."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError):  # it cannot be read, or does not exist
        for name in os.listdir(folder):
            if pattern.fullmatch(name):
                _remove_if_abandoned(folder / name)


def remove_temporary_file(path: Path) -> None:
    """Remove a temporary file, unless its process lives.

    Without locks, the caller knows that no process writes it: by the lock of a run, or by the file's age.
    """
    if fcntl is None or _UNLOCKED_FILE.fullmatch(path.name):
        path.unlink(missing_ok=True)
    else:
        _remove_if_abandoned(path)


def _remove_if_abandoned(path: Path) -> None:
    assert fcntl is not None
    with contextlib.suppress(OSError):  # it is locked, or it was renamed or removed meanwhile, or belongs to others
        access = os.O_RDONLY if path.is_dir() else os.O_RDWR  # some network drives lock only what can be written
        descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        finally:
            os.close(descriptor)
