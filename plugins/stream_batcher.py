"""stream: the text as parallel streams, read window by window."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from gentext.config import Positive
from gentext.errors import ConfigError, CorpusError
from gentext.interfaces import Ids, World


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """Options of the batcher ``stream``."""

    batch: Positive = 16
    """Streams that are read side by side: rows of a batch."""
    length: Positive = 100
    """Positions of a window, over which the gradient flows back."""
    offset: bool = False
    """Begin each epoch at another place, so that windows are cut elsewhere."""


class StreamBatcher:
    """The notebook's ``get_batches``: N contiguous streams, windows of T, targets shifted by one.

    Each row carries its state from window to window, so row r reads one unbroken N-th of the text.
    Unlike the notebook, the last target of a stream is the true next symbol, and a text that
    divides evenly loses nothing.
    """

    Config = StreamConfig

    def __init__(self, config: StreamConfig, n_tokens: int, world: World = World()) -> None:  # noqa: B008
        if config.batch % world.size:
            raise ConfigError(f"batcher.batch = {config.batch}: expected a multiple of the {world.size} processes")
        self.rows, self.length = config.batch, config.length
        self._offset = config.offset
        self._local = config.batch // world.size
        self._stride = (n_tokens - 1) // self.rows
        self.steps_per_epoch = self._stride // self.length
        if config.offset and self.steps_per_epoch > 1:
            self.steps_per_epoch -= 1  # room for the offset
        if self.steps_per_epoch < 1:
            raise CorpusError(
                f"the training text has {n_tokens} symbols, but one batch of {self.rows} x {self.length} needs "
                f"{self.rows * self.length + 1}; use a longer text, or lower batcher.batch or batcher.length"
            )

    def batch(
        self, tokens: Ids, seed: int, epoch: int, step: int, rank: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return x [B, T], y [B, T], fresh [B] of one step of an epoch, for one rank's rows."""
        begin = step * self.length + self._epoch_offset(seed, epoch)
        rows = range(rank * self._local, (rank + 1) * self._local)
        window = np.stack([tokens[r * self._stride + begin :][: self.length + 1] for r in rows]).astype(np.int64)
        return window[:, :-1], window[:, 1:], np.full(self._local, step == 0)

    def _epoch_offset(self, seed: int, epoch: int) -> int:
        room = self._stride - self.steps_per_epoch * self.length
        if not self._offset or room < 1:
            return 0
        return int(np.random.default_rng([seed, epoch]).integers(0, min(room, self.length) + 1))
