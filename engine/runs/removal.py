"""Removes files that gentext made, and no others: a file is recognized by its exact name."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from gentext.console import say
from gentext.errors import RunError
from gentext.files.temporary import remove_temporary_file, temporary_file_target
from gentext.run import CHECKPOINTS_FOLDER, EVENTS_FOLDER, FIRST_FILES, LOCK_FILE, RUN_FILES

#: The names of the files in a run's two subfolders. A checkpoint has a role, a step, and a loss where it was measured.
CHECKPOINT_NAME = re.compile(r"(last|best)-step([0-9]{6,})(?:-val([0-9]+\.[0-9]{4}))?\.safetensors")
EVENT_FILE_NAME = re.compile(r"events\.tfevents\.[0-9]{10,}")
#: The names of all files that gentext writes into a run's folder, by subfolder; the folder itself comes last.
_NAMES_BY_FOLDER = {
    CHECKPOINTS_FOLDER: CHECKPOINT_NAME,
    EVENTS_FOLDER: EVENT_FILE_NAME,
    "": re.compile("|".join(map(re.escape, RUN_FILES))),
}


def find_gentext_files(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Return the files of a folder whose whole name matches a pattern, and the temporary files of such files.

    A folder that does not exist has none.
    """
    if not folder.is_dir():
        return []
    paths = [path for path in folder.iterdir() if pattern.fullmatch(temporary_file_target(path.name) or path.name)]
    return [path for path in paths if not path.is_dir()]


def remove_temporary_files(run_folder: Path) -> None:
    """Remove the files of a run that a killed process wrote in part."""
    for name, pattern in _NAMES_BY_FOLDER.items():
        for path in find_gentext_files(run_folder / name, pattern):
            if temporary_file_target(path.name):
                remove_temporary_file(path)


def clear_beginning(run_folder: Path) -> None:
    """Remove what a training left that ended before its first checkpoint, from a folder that is locked.

    Raises RunError when another process has trained there before it was locked.
    """
    if any((run_folder / CHECKPOINTS_FOLDER).glob("*.safetensors")):
        raise RunError(f"{run_folder}: another process just trained a run in it; name another folder for the run")
    remove_temporary_files(run_folder)
    for name in FIRST_FILES:
        if name != LOCK_FILE:
            (run_folder / name).unlink(missing_ok=True)


def discard_run(run_folder: Path, kept_name: str) -> None:
    """Remove a run's folder, which need not exist.

    If it holds files that gentext did not write, they stay in it, and it is renamed to ``kept_name``, with a number
    where that is taken; a line on stderr mentions it. Raises OSError when the folder cannot be changed.
    """
    for name, pattern in _NAMES_BY_FOLDER.items():
        folder = run_folder / name
        if run_folder.is_symlink() or folder.is_symlink():  # the user has put the files elsewhere
            continue
        for path in find_gentext_files(folder, pattern):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it is not empty
            folder.rmdir()
    if run_folder.exists():
        kept_folder = _free_path(run_folder.with_name(kept_name))
        run_folder.rename(kept_folder)
        say(f"{kept_folder}: kept, because gentext did not write what is in it")


def _free_path(path: Path) -> Path:
    """Return the path, or with the first number after it that makes it one that does not exist."""
    free_path, number = path, 0
    while free_path.exists():
        number += 1
        free_path = path.with_name(f"{path.name}-{number}")
    return free_path
