"""The table of rows over one compiled generator: rows come and go, and all or some of them share a call.

What is in a row, when it begins and ends, and how many positions a call has is decided by those who use the table: the
rows of one request in `gentext.generation.compiled`, mixed texts in `gentext.generation.row_batch`, and records in
`gentext.records.record_rows`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gentext.exported.metadata import Bundle
from gentext.exported.signature import TOP_COUNT
from gentext.generation.model_calls import (
    MAX_LOGITS,
    DrawnRows,
    Feeds,
    GeneratorModel,
    draw_noise,
    read_results,
    states_after,
)

#: The end of the noise of a row that has none: below all positions, which are negative in primes.
NO_NOISE = -(2**62)

Rows = Sequence[int] | NDArray[np.int64]


class _Block(NamedTuple):
    """Rows that were added together."""

    arrays: Mapping[str, Any]
    keys: NDArray[np.uint64]
    positions: NDArray[np.int64]


class RowTable:
    """N rows: the arrays with an axis of rows that the generator is fed, and the noise of their next positions.

    A position counts the symbols that a row has drawn. It is negative while the row still has as many tokens to read.
    """

    def __init__(self, model: GeneratorModel, bundle: Bundle) -> None:
        self.model, self.bundle = model, bundle
        self.axis_by_name = model.signature.row_axes
        self.shared_feeds: Feeds = {}
        """Inputs that all rows share: tables, and parameters that no row has of its own."""
        self.top_count = 0
        """How many of the most probable symbols a call returns."""
        self._arrays: Feeds = {}
        self._added: list[_Block] = []
        """Rows that were added since the last call: putting them into the arrays together takes less time."""
        self._keys, self._positions = np.zeros((0, 2), np.uint64), np.zeros(0, np.int64)
        self._unused_noise: frozenset[str] = frozenset()
        """Links whose noise no row uses."""
        self._drop_noise()

    @property
    def arrays(self) -> Feeds:
        """The arrays of all rows by the names of the inputs. A call of all rows replaces them, and changes none."""
        self._place_added()
        return self._arrays

    @property
    def positions(self) -> NDArray[np.int64]:
        """[N] the next position of each row."""
        self._place_added()
        return self._positions

    def add(self, arrays: Mapping[str, Any], keys: NDArray[np.uint64], positions: NDArray[np.int64]) -> None:
        """Add n rows behind the others. All rows have arrays of the same names.

        :param keys: seed and stream of each row; uint64 [n, 2].
        :param positions: where each row begins; int64 [n].
        """
        self._added.append(_Block(arrays, keys, positions))

    def remove(self, rows: Rows) -> None:
        """Remove the rows with these numbers; those behind them move up."""
        kept = np.delete(np.arange(len(self.positions)), rows)
        self._arrays = self.take(kept, self._arrays)
        self._keys, self._positions = self._keys[kept], self._positions[kept]
        self._drop_noise()

    def take(self, rows: Rows, arrays: Mapping[str, Any]) -> Feeds:
        """Return copies of the rows with these numbers, of arrays of this table."""
        return {name: np.take(np.asarray(array), rows, self.axis_by_name[name]) for name, array in arrays.items()}

    def put(self, rows: Rows, arrays: Mapping[str, Any]) -> None:
        """Overwrite the arrays of some rows, with those of as many rows or of one. The table has calls of some rows."""
        for name, array in arrays.items():
            self.arrays[name][(slice(None),) * self.axis_by_name[name] + (rows,)] = array

    def replace(self, arrays: Mapping[str, Any]) -> None:
        """Put others in the place of whole arrays."""
        self._arrays = self.arrays | dict(arrays)

    def restart(self, rows: Rows, keys: NDArray[np.uint64], positions: NDArray[np.int64]) -> None:
        """Have rows go on with other random numbers, seed and stream of each [n, 2], at other positions [n]."""
        self._place_added()
        self._keys[rows], self._positions[rows], self._noise_ends[rows] = keys, positions, NO_NOISE

    def set_active_links(self, names: Collection[str]) -> None:
        """Name the links that are on in some row. The noise of the others is not drawn.

        That of links without parameters is: their tables may be those of the file, which are not known here.
        """
        unused = frozenset(link.name for link in self.bundle.chain if link.params and link.name not in names)
        if unused != self._unused_noise:
            self._unused_noise = unused
            self._drop_noise()

    def max_positions(self, rows: int) -> int:
        """Return the positions of a call of so many rows, at most, for its logits to fit into memory."""
        return max(1, MAX_LOGITS // (rows * self.bundle.vocab_size))

    def call_size(self, positions: int, rows: int) -> int:
        """Return how many positions a call of so many rows that draw has, where so many are wanted."""
        return self.model.positions or min(positions, self.max_positions(rows))

    def call(
        self,
        forced: NDArray[np.int64],
        rows: NDArray[np.int64] | None = None,
        *,
        feeds: Mapping[str, Any] | None = None,
        noise_ahead: int = 0,
    ) -> DrawnRows:
        """Run the next positions of all rows, or of those with the numbers ``rows``, and take over their states.

        :param forced: the tokens that they read, -1 where they draw; int64 [K, n].
        :param feeds: inputs of this call that take the place of those of the table.
        :param noise_ahead: of how many positions the noise is drawn at once, if it is drawn.

        Raises FileFormatError when the graph of a file returns what no generator returns.
        """
        self._place_added()
        size, count = forced.shape
        arrays = self._arrays if rows is None else self.take(rows, self._arrays)
        inputs = {**arrays, **self.shared_feeds, "fresh": np.zeros(count, np.bool_), **(feeds or {})}
        inputs |= {"forced": forced, "noise": self._make_noise(forced, rows, noise_ahead)}
        if self.top_count:
            inputs[TOP_COUNT] = np.array(self.top_count, np.int64)
        results = self.model.call(inputs)
        drawn = read_results(results, size, count, self.bundle.vocab_size, self.top_count)
        states = states_after(self.model.signature, results)
        if rows is None:
            self._arrays, self._positions = self._arrays | states, self._positions + size
        else:
            self.put(rows, states)
            self._positions[rows] += size
        return drawn

    def _place_added(self) -> None:
        """Put the rows that were added behind the others."""
        if not self._added:
            return
        blocks, self._added = self._added, []
        parts = [block.arrays for block in blocks]
        if len(self._positions):
            parts.insert(0, self._arrays)
        self._arrays = {
            name: np.concatenate([np.asarray(part[name]) for part in parts], axis)
            for name, axis in self.axis_by_name.items()
            if name in parts[0]
        }
        self._keys = np.concatenate([self._keys, *(block.keys for block in blocks)])
        self._positions = np.concatenate([self._positions, *(block.positions for block in blocks)])
        self._drop_noise()

    def _drop_noise(self) -> None:
        """Forget the noise that was drawn ahead."""
        count = len(self._positions)
        self._noise = np.zeros((0, count, self.model.signature.columns), np.float32)
        self._noise_begins = np.zeros(count, np.int64)
        self._noise_ends = self._noise_begins + NO_NOISE
        """[C, N, columns] noise of the next positions of each row, and [N] the first of them, and that behind them."""

    def _make_noise(self, forced: NDArray[np.int64], rows: NDArray[np.int64] | None, ahead: int) -> NDArray[np.float32]:
        """Return the noise of a call [K, n, columns]; what a position has that reads its token means nothing.

        Where a row has too little left, that of the next positions is drawn for all rows which have too little.
        """
        size, count = forced.shape
        if forced.min() >= 0:
            return np.zeros((size, count, self.model.signature.columns), np.float32)
        chosen = slice(None) if rows is None else rows
        positions = self._positions[chosen]
        if (positions + size > self._noise_ends[chosen]).any():
            if rows is None and ahead <= size:  # nothing is kept, so that it need not go through the buffer
                return draw_noise(self.model.signature, self._keys, positions, size, self._unused_noise)
            self._draw_ahead(size, max(size, ahead))
        indices = positions - self._noise_begins[chosen] + np.arange(size)[:, None]
        noise: NDArray[np.float32] = self._noise[indices, np.arange(count) if rows is None else rows]
        return noise

    def _draw_ahead(self, size: int, ahead: int) -> None:
        """Draw the noise of the next ``ahead`` positions of the rows that do not have that of the next ``size``."""
        short = np.flatnonzero(self._positions + size > self._noise_ends)
        begins = self._positions[short]
        noise = draw_noise(self.model.signature, self._keys[short], begins, ahead, self._unused_noise)
        if ahead > len(self._noise):
            more = np.zeros((ahead - len(self._noise), *self._noise.shape[1:]), np.float32)
            self._noise = np.concatenate([self._noise, more])
        self._noise[:ahead, short] = noise
        self._noise_begins[short], self._noise_ends[short] = begins, begins + ahead
