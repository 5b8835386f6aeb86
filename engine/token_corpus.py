"""A corpus as tokens: one text, or many records. A batcher cuts it, and a trainer measures its loss."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["TokenCorpus"]


@dataclasses.dataclass(frozen=True)
class TokenCorpus:
    """One text, or R records, as tokens.

    Records stand one behind another, and behind each of them stands the boundary: it ends the record. A record is read
    after the boundary, too, which is the input of its first position.
    """

    tokens: NDArray[np.integer[Any]]
    """Token ids: mapped from a file that may be larger than memory, read-only, and of the smallest unsigned type."""
    boundary: int | None = None
    """The token that stands for the beginning and the end of a record; None: one text."""
    offsets: NDArray[np.int64] | None = None
    """int64 [R + 1]: where each record begins in ``tokens``, and at last where they end; None: one text."""
    repeats: NDArray[np.int64] | None = None
    """int64 [R]: how many times each record counts; None: each once."""

    @classmethod
    def of_records(
        cls, tokens: NDArray[np.integer[Any]], boundary: int, repeats: NDArray[np.int64] | None = None
    ) -> TokenCorpus:
        """Return the corpus of records that each end with the boundary in ``tokens``."""
        ends = np.flatnonzero(tokens == boundary) + 1
        return cls(tokens, boundary, np.concatenate([[0], ends]), repeats)

    @property
    def is_records(self) -> bool:
        """Whether the corpus is records, each of which is read from a fresh state."""
        return self.offsets is not None

    @property
    def is_endless(self) -> bool:
        """Whether its batcher reads new text in every pass, as a teacher writes it: nothing can be learned by heart."""
        return False

    @functools.cached_property
    def lengths(self) -> NDArray[np.int64]:
        """int64 [R]: the symbols of each record that are predicted: its own, and the boundary at its end."""
        return np.diff(self._offsets)

    @functools.cached_property
    def symbols(self) -> int:
        """How many symbols one pass reads: those of the text, or of all records with their ends, repeats included."""
        return len(self.tokens) if self.repeats is None else int((self.lengths * self.repeats).sum())

    @property
    def symbols_per_record(self) -> float:
        """The mean of `lengths`, in which each record counts as often as it repeats."""
        records = self.records if self.repeats is None else int(self.repeats.sum())
        return self.symbols / records

    @property
    def records(self) -> int:
        """How many records there are, R; 0 for a text."""
        return 0 if self.offsets is None else len(self.offsets) - 1

    def beginning(self, symbols: int) -> TokenCorpus:
        """Return the corpus's beginning of about so many symbols: of a text, or whole records, at least one."""
        if self.offsets is None:
            return dataclasses.replace(self, tokens=self.tokens[:symbols])
        count = max(1, int(np.searchsorted(self.offsets, symbols, "right")) - 1)
        repeats = None if self.repeats is None else self.repeats[:count]
        return TokenCorpus(self.tokens[: self.offsets[count]], self.boundary, self.offsets[: count + 1], repeats)

    def set_aside(self, symbols: int) -> tuple[TokenCorpus, TokenCorpus]:
        """Return the corpus without about so many symbols, and these: the end of a text, or records from all of it."""
        if self.offsets is None:
            begin = len(self.tokens) - symbols
            return self.beginning(begin), dataclasses.replace(self, tokens=self.tokens[begin:])
        count = min(self.records, math.ceil(symbols / self.symbols_per_record))
        chosen = np.unique(np.linspace(0, self.records - 1, count).astype(np.int64))
        repeats = np.ones(self.records, np.int64) if self.repeats is None else self.repeats
        tokens = np.concatenate([self.tokens[self.offsets[index] : self.offsets[index + 1]] for index in chosen])
        assert self.boundary is not None
        aside = TokenCorpus.of_records(tokens, self.boundary, repeats[chosen])
        # The tokens may be larger than memory, so the rest keeps them all, and counts the chosen records no times.
        rest_repeats = repeats.copy()
        rest_repeats[chosen] = 0
        return dataclasses.replace(self, repeats=rest_repeats), aside

    def cut(self, indices: NDArray[np.int64], begin: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the inputs and the targets of some records at the positions from ``begin`` to ``end``.

        Both are int64 [len(indices), T], where T is as wide as the longest of them needs, and at least 1. At a position
        without a symbol the target is -1, and the input is the boundary. The index -1 is a row without a record.
        """
        lengths = np.where(indices >= 0, self.lengths[indices], 0)[:, None]
        width = max(1, min(int(lengths.max(initial=0)), end) - begin)
        positions = begin + np.arange(width)
        places = self._offsets[indices][:, None] + positions
        targets = np.full(places.shape, -1)
        inputs = np.full(places.shape, self.boundary)
        has_target = positions < lengths
        targets[has_target] = self.tokens[places[has_target]]
        has_input = has_target & (positions > 0)  # before the first position stands the boundary
        inputs[has_input] = self.tokens[places[has_input] - 1]
        return inputs, targets

    @property
    def _offsets(self) -> NDArray[np.int64]:
        if self.offsets is None:
            raise ValueError("the corpus is one text, which has no records")
        return self.offsets
