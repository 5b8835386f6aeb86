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
from gentext.exported.signature import TOP_COUNT, Signature
from gentext.generation.model_calls import (
    MAX_LOGITS,
    MAX_POSITIONS,
    DrawnRows,
    Feeds,
    GeneratorModel,
    check_tokens,
    next_feeds,
    read_results,
)
from gentext.noise import row_uniforms

#: Positions whose noise a shorter call draws at once: small arrays cost as much as larger ones.
NOISE_AHEAD = 32
#: Positions whose noise is kept of each row: what a call has left, and what is drawn ahead.
RING_SIZE = 2 * NOISE_AHEAD
#: The end of the noise of a row that has none: below all positions, which are negative in primes.
NO_NOISE = -(2**62)

Rows = Sequence[int] | NDArray[np.int64]


#: Seed and stream of each row [n, 2]; those of a row by itself are numbers, of which arrays are made together.
Keys = Sequence[tuple[int, int]] | NDArray[np.uint64]


class _Block(NamedTuple):
    """Rows that were added together."""

    arrays: Mapping[str, Any]
    keys: Keys
    positions: Sequence[int] | NDArray[np.int64]


class RowTable:
    """N rows: the arrays with an axis of rows that the generator is fed, and the noise of their next positions.

    A position counts the symbols that a row has drawn. It is negative while the row still has as many tokens to read.
    """

    def __init__(self, model: GeneratorModel, bundle: Bundle, *, checks_tokens: bool = True) -> None:
        """``checks_tokens``: whether a call refuses tokens that are no symbols; false where its user checks them."""
        self.model, self.bundle = model, bundle
        self.axis_by_name = model.signature.row_axes
        self.shared_feeds: Feeds = {}
        """Inputs that all rows share: tables, and parameters that no row has of its own."""
        self.top_count = 0
        """How many of the most probable symbols a call returns."""
        self._checks_tokens = checks_tokens
        self._arrays: Feeds = {}
        self._added: list[_Block] = []
        """Rows that were added since the last call: putting them into the arrays together takes less time."""
        self._positions = np.zeros(0, np.int64)
        self._noise = RowNoise(model.signature)

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

    def add(self, arrays: Mapping[str, Any], keys: Keys, positions: Sequence[int] | NDArray[np.int64]) -> None:
        """Add n rows behind the others. All rows have arrays of the same names; without ``fresh`` they go on.

        The arrays belong to the table from now on, whose `put` may change them.

        :param keys: seed and stream of each row [n, 2].
        :param positions: where each row begins [n].
        """
        self._added.append(_Block({"fresh": np.zeros(len(keys), np.bool_), **arrays}, keys, positions))

    def remove(self, rows: Rows) -> None:
        """Remove the rows with these numbers; those behind them move up."""
        kept = np.delete(np.arange(len(self.positions)), rows)
        self._arrays, self._positions = self.take(kept, self._arrays), self._positions[kept]
        self._noise.keep(kept)

    def take(self, rows: Rows, arrays: Mapping[str, Any]) -> Feeds:
        """Return copies of the rows with these numbers, of arrays of this table."""
        return {name: np.take(np.asarray(array), rows, self.axis_by_name[name]) for name, array in arrays.items()}

    def put(self, rows: Rows, arrays: Mapping[str, Any]) -> None:
        """Overwrite the arrays of some rows, with those of as many rows or of one. The table has calls of some rows."""
        table_arrays = self.arrays
        for name, array in arrays.items():
            table_arrays[name][(slice(None),) * self.axis_by_name[name] + (rows,)] = array

    def replace(self, arrays: Mapping[str, Any]) -> None:
        """Put others in the place of whole arrays."""
        self._arrays = self.arrays | dict(arrays)

    def restart(self, rows: NDArray[np.int64], keys: NDArray[np.uint64], positions: NDArray[np.int64]) -> None:
        """Have rows go on with other random numbers, seed and stream of each [n, 2], at other positions [n]."""
        self.positions[rows] = positions
        self._noise.restart(rows, keys)

    def set_active_links(self, names: Collection[str]) -> None:
        """Name the links that are on in some row. The noise of the others is not drawn.

        That of links without parameters is: their tables may be those of the file, which are not known here.
        """
        self._noise.set_unused({link.name for link in self.bundle.chain if link.params and link.name not in names})

    def call_size(self, positions: int, rows: int, *, reads: bool = False) -> int:
        """Return how many positions a call of so many rows has, where so many are wanted.

        No call has more logits than fit into memory. A generator with a fixed number of positions draws so many. It may
        read fewer, but not more, so that the states go from call to call here alone.
        """
        fixed_positions = self.model.positions
        if fixed_positions is not None and not reads:
            return fixed_positions
        most_positions = max(1, MAX_LOGITS // (rows * self.bundle.vocab_size))
        return min(positions, most_positions, fixed_positions or MAX_POSITIONS)

    def call(
        self,
        forced: NDArray[np.int64],
        rows: NDArray[np.int64] | None = None,
        *,
        feeds: Mapping[str, Any] | None = None,
    ) -> DrawnRows:
        """Run the next positions of all rows, or of those with the numbers ``rows``, and take over their states.

        :param forced: the tokens that they read, -1 where they draw; int64 [K, n].
        :param feeds: inputs of this call that take the place of those of the table.

        Raises FileFormatError when the graph of a file returns what no generator returns.
        """
        self._place_added()
        size, count = forced.shape
        inputs = dict(self._arrays) if rows is None else self.take(rows, self._arrays)
        inputs |= self.shared_feeds
        inputs |= feeds or {}
        inputs["forced"], inputs["noise"] = forced, self._make_noise(forced, rows)
        if self.top_count:
            inputs[TOP_COUNT] = np.array(self.top_count, np.int64)
        results = self.model.call(inputs)
        drawn = read_results(results, size, count, self.top_count)
        if self._checks_tokens:
            check_tokens(drawn.tokens, self.bundle.vocab_size)
        following = next_feeds(self.model.signature, results)
        if rows is None:
            self._arrays, self._positions = self._arrays | following, self._positions + size
        else:
            self.put(rows, following)
            self._positions[rows] += size
        return drawn

    def _make_noise(self, forced: NDArray[np.int64], rows: NDArray[np.int64] | None) -> NDArray[np.float32]:
        """Return the noise of a call [K, n, columns]; what a position has that reads its token means nothing."""
        if forced.min() >= 0:
            return np.zeros((*forced.shape, self.model.signature.columns), np.float32)
        return self._noise.take(self._positions, len(forced), rows)

    def _place_added(self) -> None:
        """Put the rows that were added behind the others."""
        if not self._added:
            return
        blocks, self._added = self._added, []
        parts = [block.arrays for block in blocks]
        if len(self._positions):
            parts.insert(0, self._arrays)
        axes = {name: axis for name, axis in self.axis_by_name.items() if name in parts[0]}
        if len(parts) == 1:
            self._arrays = {name: parts[0][name] for name in axes}
        else:
            self._arrays = {
                name: np.concatenate([np.asarray(part[name]) for part in parts], axis) for name, axis in axes.items()
            }
        positions = [position for block in blocks for position in block.positions]
        self._positions = np.concatenate([self._positions, np.array(positions, np.int64)])
        self._noise.add(np.array([key for block in blocks for key in block.keys], np.uint64))


class RowNoise:
    """The noise of the next positions of N rows, each of which has a seed and a stream."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._unused: frozenset[str] = frozenset()
        """Links whose noise no row uses."""
        self._keys = np.zeros((0, 2), np.uint64)
        """[N, 2] seed and stream of each row."""
        self._ends = np.zeros(0, np.int64)
        """[N] the position of each row behind the last one whose noise was drawn."""
        self._ring = np.zeros((RING_SIZE, 0, signature.columns), np.float32)
        """[C, N, columns], C = `RING_SIZE`: the noise of position p is at p modulo C."""

    def add(self, keys: NDArray[np.uint64]) -> None:
        """Add rows behind the others, with the seed and the stream of each [n, 2]."""
        self._keys = np.concatenate([self._keys, keys])
        self._ends = np.concatenate([self._ends, np.full(len(keys), NO_NOISE)])
        added = np.zeros((RING_SIZE, len(keys), self._signature.columns), np.float32)
        self._ring = np.concatenate([self._ring, added], axis=1)

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Remove all rows but those with these numbers."""
        self._keys, self._ends, self._ring = self._keys[rows], self._ends[rows], self._ring[:, rows]

    def restart(self, rows: NDArray[np.int64], keys: NDArray[np.uint64]) -> None:
        """Have rows go on with other seeds and streams [n, 2]."""
        self._keys[rows], self._ends[rows] = keys, NO_NOISE

    def set_unused(self, names: Collection[str]) -> None:
        """Name the links whose noise is not drawn from now on."""
        if self._unused != names:
            self._unused = frozenset(names)
            self._ends[:] = NO_NOISE

    def take(self, positions: NDArray[np.int64], size: int, rows: NDArray[np.int64] | None) -> NDArray[np.float32]:
        """Return the noise [K, n, columns] of K = ``size`` positions of all rows, or of the rows with these numbers.

        What a row has at a position below 0 means nothing.

        :param positions: the next position of each row, whether it is in this call or not; int64 [N].
        """
        chosen = np.arange(len(positions)) if rows is None else rows
        if size >= NOISE_AHEAD:
            return draw_noise(self._signature, self._keys[chosen], positions[chosen], size, self._unused)
        if (self._ends[chosen] < positions[chosen] + size).any():
            self._draw_ahead(np.flatnonzero(self._ends < positions + size), positions)
        places = (positions[chosen] + np.arange(size)[:, None]) % RING_SIZE
        noise: NDArray[np.float32] = self._ring[places, chosen]
        return noise

    def _draw_ahead(self, rows: NDArray[np.int64], positions: NDArray[np.int64]) -> None:
        """Draw the noise of more positions of these rows."""
        begins = np.maximum(self._ends[rows], positions[rows])
        places = (begins + np.arange(NOISE_AHEAD)[:, None]) % RING_SIZE
        self._ring[places, rows] = draw_noise(self._signature, self._keys[rows], begins, NOISE_AHEAD, self._unused)
        self._ends[rows] = begins + NOISE_AHEAD


def draw_noise(
    signature: Signature,
    keys: NDArray[np.uint64],
    positions: NDArray[np.int64],
    size: int,
    unused: Collection[str] = (),
) -> NDArray[np.float32]:
    """Return the noise of a call [K, N, columns] with K = ``size``; zeros for the links whose names are ``unused``.

    ``keys`` [N, 2] has the seed and the stream of each row, ``positions`` [N] its first position.
    """
    noise = np.zeros((size, len(keys), signature.columns), np.float32)
    for name, (column, columns) in signature.noise.items():
        if name not in unused:
            noise[:, :, column : column + columns] = row_uniforms(keys, name, positions, size, columns)
    return noise
