"""Writes files that are complete, or not there at all.

A file is written under another name beside it, forced to the disk and renamed. `gentext.files.temporary` removes what a
process left that was killed meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from gentext.errors import GenError, RunError, UsageError
from gentext.files.temporary import TEMPORARY_FILE, fcntl, lock, remove_abandoned, temporary_file_path


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that is complete, or not there at all.

    Raises RunError when the disk is full or the folder cannot be written.
    """
    try:
        with _temporary_file(path) as file:
            yield file
            _sync(file)
            _rename(file, path)
    except OSError as error:
        raise failed_write(path, error) from error


def check_output(path: Path) -> None:
    """Raise UsageError for a path that no file can have."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; expected the name of a file")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; make it first")


@contextlib.contextmanager
def open_output(path: Path) -> Iterator[IO[bytes]]:
    """Open the output of a command: a file as `atomic_write` has it, or a device or a pipe, which is written at once.

    A link stays, and what it points to is written. Raises RunError where that fails, GenError where Ctrl-C leaves the
    file as it was.
    """
    if path.exists() and not path.is_file():
        try:
            with path.open("wb") as file:
                yield file
        except OSError as error:
            raise failed_write(path, error) from error
        return
    try:
        with atomic_write(path.resolve() if path.is_symlink() else path) as file:
            yield file
    except KeyboardInterrupt:
        raise GenError(f"stopped by Ctrl-C; {path} is as it was before") from None


def atomic_write_all(contents: Mapping[Path, bytes | None]) -> None:
    """Replace files of one folder that belong together: all are complete on the disk before the first is renamed.

    None stands for a file that is removed. Raises RunError when the disk is full or the folder cannot be written; then
    all files are as they were, unless a rename itself fails.
    """
    path = Path()  # the one that is written at the moment
    try:
        with contextlib.ExitStack() as stack:
            files: dict[Path, IO[bytes]] = {}
            for path, content in contents.items():
                if content is not None:
                    files[path] = stack.enter_context(_temporary_file(path))
                    files[path].write(content)
                    _sync(files[path])
            for path in contents:
                if path in files:
                    _rename(files[path], path)
                else:
                    path.unlink(missing_ok=True)
                    sync_folder(path.parent)
    except OSError as error:
        raise failed_write(path, error, sum(len(content or b"") for content in contents.values())) from error


@contextlib.contextmanager
def _temporary_file(path: Path) -> Iterator[IO[bytes]]:
    """Create a locked file beside the one at ``path``. It is removed at the end, unless it was renamed."""
    remove_abandoned(path.parent, TEMPORARY_FILE)
    file = _create_locked(path)
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # a full disk fails once more, now that the rest of the buffer is written
            file.close()
        with contextlib.suppress(OSError):
            os.unlink(file.name)


def _create_locked(path: Path) -> IO[bytes]:
    while True:
        temporary_path = temporary_file_path(path)
        file = temporary_path.open("xb")
        if lock(file.fileno(), temporary_path):
            return file
        file.close()


def _sync(file: IO[bytes]) -> None:
    """Force the content of a file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def _rename(file: IO[bytes], path: Path) -> None:
    """Give a temporary file its name. It stays locked until then, so that no other process removes it."""
    if fcntl is None:  # Windows renames no file that is open
        file.close()
    os.replace(file.name, path)
    sync_folder(path.parent)


def failed_write(
    path: Path, error: OSError, needed: int | None = None, kept: str = "what was there before"
) -> RunError:
    """Return the error for a file that cannot be written.

    :param needed: bytes that were to be written, where that is clear.
    :param kept: what is not lost.
    """
    advice = advise_room(error, path.parent, needed)
    return RunError(f"{path}: cannot be written ({error.strerror or error}); {kept} is kept{advice}")


def advise_room(error: OSError, place: Path | int, needed: int | None = None) -> str:
    """Return what to do about a full disk, as the end of a message; nothing for any other error.

    :param place: a path or an open file on that disk.
    :param needed: bytes that are to be written, where that is clear.
    """
    if error.errno != errno.ENOSPC:
        return ""
    try:
        mode = os.stat(place).st_mode
        free = shutil.disk_usage(place).free
    except (OSError, TypeError):  # Windows knows the disk of a path alone
        return ""
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a device, such as /dev/full
        return ""
    is_free = f"{_format_size(free)} are free"
    if needed is None:
        return f"; make room ({is_free})"
    return f"; make room: {_format_size(needed + 999)} are needed, {is_free}"  # less than a kilobyte is one


def _format_size(size: int) -> str:
    """Return a size in whole kilobytes, rounded down, or in megabytes."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size // 1000} kB"


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content atomically."""
    atomic_write_all({path: content})


def write_text(path: Path, text: str) -> None:
    """Replace a file's content atomically, as UTF-8 without translating line ends."""
    write_bytes(path, text.encode("utf-8"))


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power cut, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
