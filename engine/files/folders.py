"""Folders that environment variables choose."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from gentext.errors import ConfigError, RunError
from gentext.files.atomic import advise_room
from gentext.files.temporary import TEMPORARY_FOLDER, locked_folder, remove_abandoned


def environment_folder(variable: str) -> Path | None:
    """Return the folder that an environment variable names, which may begin with ``~``; None where it is not set.

    Raises ConfigError for the home of a user whom the system does not know.
    """
    folder = os.environ.get(variable)
    if not folder:
        return None
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{variable}={folder}: the system knows no home folder for its ~; give the whole path"
        ) from None


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder in the system's folder for temporary files, which is removed at the end.

    Removes those of killed processes, too. Raises RunError when it cannot be made, or when a file in it cannot be
    written.
    """
    import tempfile  # only an export and a benchmark need it, and importing it takes time at every start

    parent = folder = None
    try:
        parent = Path(tempfile.gettempdir())
        remove_abandoned(parent, TEMPORARY_FOLDER)
        with locked_folder(parent) as folder:
            yield folder
    except OSError as error:
        # The error of a full disk names no file.
        if folder and error.filename is not None and not str(error.filename).startswith(str(folder)):
            raise
        room = advise_room(error, parent) if parent else ""
        raise RunError(
            f"{folder or 'the folder for temporary files'}: cannot be written ({error.strerror}){room or '; make room'}"
            f", or let TMPDIR name another folder"
        ) from error
