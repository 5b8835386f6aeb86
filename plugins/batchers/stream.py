"""The batcher stream: cuts the text into parallel streams, which are read window by window."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from gentext.config import Positive
from gentext.errors import ConfigError, CorpusError
from gentext.interfaces import World
from gentext.token_corpus import TokenCorpus


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """Options of the batcher ``stream``."""

    batch: Positive = 16
    """Streams that are read side by side: rows of a batch."""
    length: Positive = 100
    """Positions of a window, over which the gradient flows back."""
    offset: bool = False
    """Begin each epoch at another symbol, so that windows are cut elsewhere."""


class StreamBatcher:
    """The notebook's ``get_batches``: N contiguous streams, windows of T, targets shifted by one.

    Each row carries its state from window to window, so row r reads one unbroken N-th of the text.
    The streams are cut as in the notebook, with two differences. The last target of a stream is the true
    next symbol; only at the end of an evenly divided text there is none, and it is the stream's first
    symbol. And the notebook drops a text that divides evenly.
    """

    Config = StreamConfig

    def __init__(self, config: StreamConfig, corpus: TokenCorpus, world: World = World()) -> None:  # noqa: B008
        check_shares("batcher.batch", config.batch, world)
        self._tokens = corpus.tokens
        n_tokens = len(self._tokens)
        self.rows, self.length = config.batch, config.length
        #: Rows of this process.
        self._local_rows = config.batch // world.size
        self.steps_per_epoch = n_tokens // (self.rows * self.length)
        if config.offset and self.steps_per_epoch > 1:
            self.steps_per_epoch -= 1
        #: Symbols from the beginning of a stream to that of the next.
        self._stride = self.steps_per_epoch * self.length
        #: Symbols after the last stream, by which all streams together may be moved.
        self._max_offset = max(0, n_tokens - self.rows * self._stride - 1) if config.offset else 0
        self.symbols_per_epoch = self.rows * self._stride
        if self.steps_per_epoch < 1:
            raise CorpusError(
                f"the training text has {n_tokens} symbols, but one batch of {self.rows} x {self.length} needs "
                f"{self.rows * self.length}; use a longer text, or lower batcher.batch or batcher.length"
            )

    def batch(
        self, seed: int, epoch: int, step: int, rank: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return x [B, T], y [B, T], fresh [B] of one step of an epoch, for one rank's rows."""
        begin = step * self.length + self._epoch_offset(seed, epoch)
        rows = range(rank * self._local_rows, (rank + 1) * self._local_rows)
        windows = np.stack([self._cut_window(row, begin) for row in rows])
        return windows[:, :-1], windows[:, 1:], np.full(self._local_rows, step == 0)

    def _cut_window(self, row: int, begin: int) -> NDArray[np.int64]:
        """Return the T symbols of one row and the one after them."""
        stream_begin = row * self._stride
        window_begin = stream_begin + begin
        window = self._tokens[window_begin : window_begin + self.length + 1].astype(np.int64)
        if len(window) > self.length:
            return window
        return np.append(window, np.int64(self._tokens[stream_begin]))  # at the end of the text there is no next symbol

    def _epoch_offset(self, seed: int, epoch: int) -> int:
        """Return by how much an epoch's windows are moved, the same for all rows and ranks."""
        return int(np.random.default_rng([seed, epoch]).integers(0, self._max_offset + 1)) if self._max_offset else 0


def check_shares(option: str, rows: int, world: World) -> None:
    """Raise ConfigError where the processes cannot share so many rows evenly; ``option`` is their name."""
    if rows % world.size:
        multiple_below = rows // world.size * world.size
        nearest_multiples = (multiple_below, multiple_below + world.size)
        fitting_batches = " or ".join(str(multiple) for multiple in nearest_multiples if multiple)
        raise ConfigError(
            f"{option} = {rows}: {world.size} processes cannot share {rows} rows evenly; "
            f"take {fitting_batches}, or any other multiple of {world.size}"
        )
