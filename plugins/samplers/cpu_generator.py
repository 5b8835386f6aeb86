"""A compiled generator on the cores of a CPU: each core writes a share of the rows by itself.

Within one run of a session all threads share every node, and wait for each other behind it. At many rows
that, and values that wander from core to core, cost a good part of the time; rows need nothing of each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gentext.errors import FileFormatError
from gentext.plugins.samplers.session import GeneratorSession, open_file
from gentext.signature import Port

if TYPE_CHECKING:
    from concurrent.futures import Executor

#: Rows of a share at least: fewer take about as long as these.
LEAST_ROWS = 8
#: Bytes of a file beyond which every core would wait for the weights that it reads for itself.
LARGEST_FILE = 8_000_000

Feeds = Mapping[str, Any]


class ParallelGenerator:
    """Runs few rows in the session as it is, many rows in shares."""

    positions = None

    def __init__(self, whole: GeneratorSession, cores: int) -> None:
        self.signature = whole.signature
        self._whole, self._single = whole, whole if whole.threads == 1 else None
        self._cores = cores if whole.path.stat().st_size <= LARGEST_FILE else 1
        self._executor: Executor | None = None

    def call(self, feeds: Feeds) -> Feeds:
        """Run the positions that ``forced`` has; outputs by name."""
        rows = len(feeds["token"])
        shares = self.shares(rows)
        if shares == 1:
            return self._whole.call(feeds)
        single, executor = self._ready()
        edges = [rows * share // shares for share in range(shares + 1)]
        parts = [self._part(feeds, *edge) for edge in itertools.pairwise(edges)]
        done = list(executor.map(single.call, parts))
        return {one.name: _joined(one, [results[one.name] for results in done]) for one in self.signature.outputs}

    def shares(self, rows: int) -> int:
        """Return into how many shares so many rows are cut."""
        return max(1, min(self._cores, rows // LEAST_ROWS))

    def _ready(self) -> tuple[GeneratorSession, Executor]:
        """Open what only many rows need, when they first come."""
        if self._single is None:
            found = open_file(self._whole.path, "cpu", 1)
            if not isinstance(found, GeneratorSession) or found.bundle != self._whole.bundle:
                raise FileFormatError(f"{self._whole.path}: has changed since it was opened; open it again")
            self._single = found
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor

            self._executor = ThreadPoolExecutor(self._cores)
        return self._single, self._executor

    def _part(self, feeds: Feeds, begin: int, end: int) -> Feeds:
        ports = {one.name: one for one in self.signature.inputs}
        return {name: _share(ports[name], value, begin, end) for name, value in feeds.items()}


def _share(port: Port, value: Any, begin: int, end: int) -> Any:
    """Return the rows of an input from ``begin`` to ``end``; all of it where all rows share it."""
    axis = port.row_axis
    if axis is None or (port.default is not None and np.shape(value)[axis] == 1):
        return value
    return np.ascontiguousarray(np.asarray(value)[(slice(None),) * axis + (slice(begin, end),)])


def _joined(port: Port, parts: list[Any]) -> Any:
    axis = port.row_axis
    return parts[0] if axis is None else np.concatenate(parts, axis)
