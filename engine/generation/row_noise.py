"""The noise of rows of a compiled generator: drawn for many positions at once, and handed out call by call."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from gentext.exported.signature import Signature
from gentext.noise import row_uniforms

#: Positions whose noise is drawn at once, at least: small arrays cost as much as larger ones.
NOISE_AHEAD = 32
#: The end of the noise of a row that has none: below all positions, which are negative in primes.
NO_NOISE = -(2**62)


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
        self._ring = np.zeros((0, 0, signature.columns), np.float32)
        """[C, N, columns]: the noise of position p is at p modulo C."""

    def add(self, keys: NDArray[np.uint64]) -> None:
        """Add rows behind the others, with the seed and the stream of each [n, 2]."""
        capacity, _, columns = self._ring.shape
        self._keys = np.concatenate([self._keys, keys])
        self._ends = np.concatenate([self._ends, np.full(len(keys), NO_NOISE)])
        self._ring = np.concatenate([self._ring, np.zeros((capacity, len(keys), columns), np.float32)], axis=1)

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
        ahead = max(size, NOISE_AHEAD)
        self._reserve(2 * ahead)
        chosen = np.arange(len(positions)) if rows is None else rows
        if (self._ends[chosen] < positions[chosen] + size).any():
            self._draw(np.flatnonzero(self._ends < positions + size), positions, ahead)
        places = (positions[chosen] + np.arange(size)[:, None]) % len(self._ring)
        noise: NDArray[np.float32] = self._ring[places, chosen]
        return noise

    def _reserve(self, capacity: int) -> None:
        """Have room for the noise of so many positions. That of a smaller ring lies at other places, and is dropped."""
        if capacity > len(self._ring):
            self._ring = np.zeros((capacity, *self._ring.shape[1:]), np.float32)
            self._ends[:] = NO_NOISE

    def _draw(self, rows: NDArray[np.int64], positions: NDArray[np.int64], ahead: int) -> None:
        """Draw the noise of ``ahead`` more positions of these rows."""
        begins = np.maximum(self._ends[rows], positions[rows])
        places = (begins + np.arange(ahead)[:, None]) % len(self._ring)
        self._ring[places, rows] = draw_noise(self._signature, self._keys[rows], begins, ahead, self._unused)
        self._ends[rows] = begins + ahead


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
