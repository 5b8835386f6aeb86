"""A compiled generator on a CPU with several cores: each core runs the graph for a share of the rows.

Within one run of a session all threads work on one node of the graph at a time, and wait for each other
after it. With many rows these waits, and arrays that move from one core's cache to another's, cost a
good part of the time. Rows do not depend on each other, so each core can run the session for its own rows instead.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gentext.errors import FileFormatError
from gentext.exported.signature import Port
from gentext.interrupts import call_stoppable
from gentext.plugins.samplers.runtime import run_options, stop_runs
from gentext.plugins.samplers.session import GeneratorSession, open_file

if TYPE_CHECKING:
    from concurrent.futures import Executor

#: Smallest number of rows of a share: fewer rows take about as long.
MIN_SHARE_ROWS = 8
#: Smallest number of rows that have a session of their own, whose memory comes in larger parts.
MIN_MANY_ROWS = 2 * MIN_SHARE_ROWS
#: Largest file, in bytes, for which shares are faster: with a larger one every core waits for weights from memory.
MAX_FILE_BYTES = 8_000_000

Feeds = Mapping[str, Any]


class ParallelGenerator:
    """Runs few rows in one run of the session, and many rows in another session, in shares, one for each core.

    Several threads may call it at a time.
    """

    positions = None

    def __init__(self, session: GeneratorSession, cores: int) -> None:
        self.signature = session.signature
        self._session = session
        self._is_large = session.path.stat().st_size > MAX_FILE_BYTES
        self._cores = 1 if self._is_large else cores
        self._lock = threading.Lock()
        """Guards the two below, which are made when many rows first come."""
        self._share_session: GeneratorSession | None = None
        self._executor: Executor | None = None

    def call(self, feeds: Feeds) -> Feeds:
        """Run the graph for the K positions of ``forced`` [K, N], and return its outputs by name.

        Raises FileFormatError when the file has changed since it was opened.
        """
        rows = len(feeds["token"])
        if rows < MIN_MANY_ROWS or self._is_large:
            return self._session.call(feeds)
        session, executor = self._prepare_shares()
        shares_count = self.share_count(rows)
        if shares_count == 1:
            return session.call(feeds)
        row_bounds = [rows * share // shares_count for share in range(shares_count + 1)]
        share_feeds = [self._share_feeds(feeds, begin, end) for begin, end in itertools.pairwise(row_bounds)]
        results = _run_shares(executor, session, share_feeds)
        ports = [port for port in self.signature.outputs if port.name in results[0]]
        return {port.name: _join_rows(port, [outputs[port.name] for outputs in results]) for port in ports}

    def share_count(self, rows: int) -> int:
        """Return the number of shares that a batch is split into."""
        return max(1, min(self._cores, rows // MIN_SHARE_ROWS))

    def _prepare_shares(self) -> tuple[GeneratorSession, Executor]:
        """Return the session with one thread and the executor for the shares, made in the first call."""
        with self._lock:
            if self._share_session is None:
                session = open_file(self._session.path, "cpu", 1, self._session.verify, many_rows=True)
                if not isinstance(session, GeneratorSession) or session.bundle != self._session.bundle:
                    raise FileFormatError(f"{self._session.path}: has changed since it was opened; open it again")
                self._share_session = session
            if self._executor is None:
                from concurrent.futures import ThreadPoolExecutor

                self._executor = ThreadPoolExecutor(self._cores)
            return self._share_session, self._executor

    def _share_feeds(self, feeds: Feeds, begin: int, end: int) -> Feeds:
        """Return the inputs of the rows from ``begin`` to ``end``."""
        ports = {port.name: port for port in self.signature.inputs}
        return {name: _slice_rows(ports[name], tensor, begin, end) for name, tensor in feeds.items()}


def _run_shares(executor: Executor, session: GeneratorSession, share_feeds: Sequence[Feeds]) -> list[Feeds]:
    """Return the outputs of each share. When one fails, or Ctrl-C comes, no share goes on."""
    from concurrent.futures import wait

    options = [run_options() for _ in share_feeds]
    futures = [executor.submit(session.call, *share) for share in zip(share_feeds, options, strict=True)]

    def gather() -> list[Feeds]:
        try:
            return [future.result() for future in futures]
        except BaseException:
            stop_runs(options)
            wait(futures)
            raise

    return call_stoppable(gather, lambda: stop_runs(options))


def _slice_rows(port: Port, tensor: Any, begin: int, end: int) -> Any:
    """Return the rows of an input from ``begin`` to ``end``; the whole input where all rows share it."""
    axis = port.row_axis
    if axis is None or (port.default is not None and np.shape(tensor)[axis] == 1):
        return tensor
    return np.ascontiguousarray(np.asarray(tensor)[(slice(None),) * axis + (slice(begin, end),)])


def _join_rows(port: Port, share_outputs: list[Any]) -> Any:
    axis = port.row_axis
    return share_outputs[0] if axis is None else np.concatenate(share_outputs, axis)
