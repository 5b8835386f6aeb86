"""windows: every row of every batch is a window from anywhere in the text."""

import dataclasses

import numpy as np

from gentext.config import Positive
from gentext.errors import CorpusError


@dataclasses.dataclass(frozen=True)
class WindowsConfig:
    """Options of the batcher ``windows``."""

    rows: Positive = 16
    """Windows of a batch."""
    length: Positive = 64
    """Symbols of a window."""


class RandomWindows:
    """No row goes on where it stopped, so all of them are fresh at every step."""

    Config = WindowsConfig

    def __init__(self, config, corpus, world):
        self._tokens = corpus.tokens
        n_tokens = len(self._tokens)
        if n_tokens <= config.length:
            raise CorpusError(f"{n_tokens} symbols are too few for a window of {config.length}; use a longer text")
        self.rows, self.length = config.rows, config.length
        self.steps_per_epoch = max(1, n_tokens // (self.rows * self.length))
        self.symbols_per_epoch = self.steps_per_epoch * self.rows * self.length
        self._local_rows = self.rows // world.size

    def batch(self, seed, epoch, step, rank):
        rng = np.random.default_rng([seed, epoch, step, rank])
        starts = rng.integers(0, len(self._tokens) - self.length, self._local_rows)
        windows = self._tokens[starts[:, None] + np.arange(self.length + 1)].astype(np.int64)
        return windows[:, :-1], windows[:, 1:], np.ones(self._local_rows, bool)
