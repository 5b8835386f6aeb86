"""The lock of a run: one training at a time may read and write the run's folder."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from gentext.console import warn
from gentext.errors import MissingExtra, RunError
from gentext.interfaces import World
from gentext.run import LOCK_FILE

#: Seconds to wait for the lock: a process that was just killed may need them to end.
LOCK_TIMEOUT = 2
#: What a system answers where the file system offers no locks, as some network drives do.
NO_LOCKS_ERRORS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}


class RunLock(contextlib.ExitStack):
    """Holds the lock of a run from `acquire` until the end of the context.

    The operating system releases the lock of a process that dies, however it dies.
    """

    def acquire(self, folder: Path) -> None:
        """Take the lock of a run whose folder exists. Of several processes that train together, rank 0 takes it.

        Raises RunError when another process trains the run or the folder cannot be written, MissingExtra without the
        package filelock.
        """
        if World.of_process().rank:
            return
        try:
            from filelock import FileLock, Timeout
        except ModuleNotFoundError:
            raise MissingExtra("training", "train") from None
        path = folder / LOCK_FILE
        try:
            self.enter_context(FileLock(path).acquire(timeout=LOCK_TIMEOUT))
        except Timeout:
            raise RunError(
                f"{folder}: another process trains this run; wait for its end, or name another folder for the run"
            ) from None
        except (OSError, NotImplementedError) as error:  # some versions of filelock raise the second for ENOSYS
            if isinstance(error, OSError) and error.errno not in NO_LOCKS_ERRORS:
                raise RunError(
                    f"{path}: cannot be written ({error.strerror}); training needs a folder that can be written"
                ) from error
            warn(f"{folder}: this file system has no locks; do not train this run in two processes at a time")
