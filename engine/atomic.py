"""Writes files that are complete, or not there at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from gentext.errors import RunError


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that is complete, or not there at all: temporary file, fsync, rename.

    Raises RunError when the disk is full or the folder cannot be written.
    """
    with _temporary_paths(path) as [temporary_path], _explain_failed_write(path):
        with _open_synced(temporary_path) as file:
            yield file
        os.replace(temporary_path, path)
        sync_folder(path.parent)


def atomic_write_all(contents: Mapping[Path, bytes | None]) -> None:
    """Replace files of one folder that belong together: all are complete on the disk before the first is renamed.

    None stands for a file that is removed. Raises RunError when the disk is full or the folder cannot be written; then
    all files are as they were, unless a rename itself fails.
    """
    with _temporary_paths(*contents) as temporary_paths:
        replacements = dict(zip(contents, temporary_paths, strict=True))
        for path, content in contents.items():
            if content is not None:
                with _explain_failed_write(path), _open_synced(replacements[path]) as file:
                    file.write(content)
        for path, content in contents.items():
            with _explain_failed_write(path):
                if content is None:
                    path.unlink(missing_ok=True)
                else:
                    os.replace(replacements[path], path)
                sync_folder(path.parent)


@contextlib.contextmanager
def _temporary_paths(*paths: Path) -> Iterator[list[Path]]:
    """Return the path of a temporary file beside each path. Those that were not renamed are removed at the end."""
    temporary_paths = [path.parent / f".{path.name}.{os.urandom(4).hex()}.tmp" for path in paths]
    try:
        yield temporary_paths
    finally:
        for temporary_path in temporary_paths:
            with contextlib.suppress(OSError):
                temporary_path.unlink(missing_ok=True)


@contextlib.contextmanager
def _open_synced(path: Path) -> Iterator[IO[bytes]]:
    """Create a file to write to, and force its content to the disk at the end."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _explain_failed_write(path: Path) -> Iterator[None]:
    """Turn an OSError into a RunError that names the file."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}); what was there before is kept"
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content atomically."""
    with atomic_write(path) as file:
        file.write(content)


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
