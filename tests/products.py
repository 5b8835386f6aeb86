"""What tests train and export once: each product is a folder that all workers of a session share.

The name of the folder is a hash of everything that its files depend on, so a folder that is there is right. A session
begins without products; ``GENTEXT_TEST_PRODUCTS`` names a folder that keeps them between sessions.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest

ROOT = Path(__file__).parents[1]
#: The folders of the package, and the helpers of the tests.
SOURCES = ("engine", "plugins", "export", "cli", "data", "tests/*.py")


@functools.cache
def fingerprint() -> str:
    """Return a hash of the package's files, of all installed versions, and of what the processor can do."""
    digest = hashlib.sha256()
    for pattern in SOURCES:
        for found in sorted(ROOT.glob(pattern)):
            for path in [found] if found.is_file() else sorted(found.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode())
                    digest.update(path.read_bytes())
    versions = sorted(f"{found.name} {found.version}" for found in importlib.metadata.distributions())
    processor = Path("/proc/cpuinfo")
    flags = {line for line in processor.read_text().splitlines() if "flags" in line} if processor.exists() else set()
    threads = os.environ.get("OMP_NUM_THREADS"), os.cpu_count()
    digest.update(repr((versions, platform.uname(), platform.python_version(), sorted(flags), threads)).encode())
    return digest.hexdigest()


class Products:
    """The products of a session.

    Parameters
    ----------
    shared
        The folder that all workers share.
    temporary
        Makes a folder of this worker.
    """

    def __init__(self, shared: Path, temporary: pytest.TempPathFactory) -> None:
        self.shared, self.temporary = shared, temporary
        shared.mkdir(parents=True, exist_ok=True)

    def find(self, make: Callable[[Path], None], *key: object) -> Path:
        """Return the folder that ``make`` has filled, in this worker or in another. Only read it.

        ``key`` is all that the files depend on beside the package and the file of ``make``.
        """
        code = make.__code__
        identity = (fingerprint(), Path(code.co_filename).read_text(encoding="utf-8"), code.co_qualname, key)
        folder = self.shared / hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
        complete = folder.with_suffix(".complete")
        with filelock.FileLock(folder.with_suffix(".lock")):
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that was ended on the way
                folder.mkdir()
                make(folder)
                complete.touch()
        return folder

    def copy(self, make: Callable[[Path], None], *key: object) -> Path:
        """Return a copy, of this worker, of the folder that ``make`` has filled."""
        return shutil.copytree(self.find(make, *key), self.temporary.mktemp("product"), dirs_exist_ok=True)
