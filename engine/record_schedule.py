"""Which rows share a call in which records are drawn, and how many positions it has.

A row whose record ends within a call is idle for the rest of it. Long calls have many such positions, and short calls
cost much by themselves. How likely a record ends in its next positions depends on how long it is already: names of one
letter are rare, and few have 12. So rows that may go on for about as many positions share a call: records that have
just begun have a long one, and those that may end at any symbol have short ones.
"""

from __future__ import annotations

import collections

import numpy as np
from numpy.typing import NDArray

from gentext.compiled import MAX_POSITIONS
from gentext.settings import cores

#: Positions of the first calls, of which the later ones learn how long a call and a position take.
FIRST_POSITIONS = (4, 16)
#: The choice is made anew when so many times the records have ended as when it was made before.
NEW_CHOICE = 1.5
#: Symbols of a record from which on the schedule does not tell lengths apart.
LONGEST_TOLD_APART = 4096
#: Rows of a call for each core, if so many are busy: of so many rows or of more, a position takes as long for each row.
CORE_ROWS = 64
#: More rows share a call, up to so many times as many, where the best numbers of positions differ by less than this.
MOST_ROWS, LIKE_POSITIONS = 2, 1.5
#: Calls of each order of magnitude whose times are known: the last ones.
MEASURED_CALLS = 32
#: A record that is longer than all that have ended goes on for this part of its length.
UNKNOWN_PART = 1 / 4


class RecordSchedule:
    """Chooses the rows and positions of a call by what calls took, and how long the records were that have ended.

    A call of K positions takes a + b K seconds for each of its rows. A record that has e symbols still takes, with the
    best calls, V(e) seconds: the least of a + b K + P(more than e + K symbols | more than e) V(e + K) over all K. Times
    and lengths decide when a symbol is drawn, never which one.
    """

    def __init__(self) -> None:
        self._rows = CORE_ROWS * cores()
        self._calls = self._total_rows = 0
        self._measured: dict[int, collections.deque[tuple[float, int]]] = {}
        """The last calls of each order of magnitude: the seconds of a position of a row, and how many of them there
        were."""
        self._ended = np.zeros(LONGEST_TOLD_APART + 1, np.int64)
        """How many records of each number of symbols have ended."""
        self._ended_count = self._chosen_at = 0
        """How many records have ended, and how many had when the choice below was made."""
        self._best = np.full(LONGEST_TOLD_APART + 1, FIRST_POSITIONS[-1])
        """The best number of positions for a row, by the symbols that it has."""
        self._going_on = np.ones(LONGEST_TOLD_APART + 1 + MAX_POSITIONS)
        """The share of records with more symbols than so many."""
        self._seconds_left = np.zeros(LONGEST_TOLD_APART + 1 + MAX_POSITIONS)
        """That share, times the seconds for which these records go on with the best calls."""
        self._position_seconds = 1.0

    def choose_call(self, lengths: NDArray[np.int64], last_calls: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
        """Return which of the busy rows share the next call, and its positions.

        :param lengths: how many symbols each row has; int64 [n], n is at least 1.
        :param last_calls: the number of the last call in which each row was; int64 [n]. The one that has waited longest
            is in the next call.
        """
        lengths = np.minimum(lengths, LONGEST_TOLD_APART)
        is_learning = self._calls <= len(FIRST_POSITIONS)
        if not is_learning and self._ended_count > NEW_CHOICE * self._chosen_at:
            self._choose_best(lengths)
        sizes = self._best[lengths]
        distances = np.abs(np.log(sizes / sizes[last_calls.argmin()]))
        rows = np.lexsort((last_calls, distances))[: MOST_ROWS * self._rows]
        rows = rows[: max(self._rows, np.searchsorted(distances[rows], np.log(LIKE_POSITIONS)))]
        if is_learning:  # the first call is not measured
            return rows, FIRST_POSITIONS[max(0, self._calls - 1)]
        return rows, self._choose_positions(lengths[rows], int(sizes[rows].min()), int(sizes[rows].max()))

    def record_call(self, rows: int, positions: int, seconds: float, ended: NDArray[np.int64]) -> None:
        """Remember a call: how long it took with all that is done for it, and the records that ended in it.

        :param ended: how many symbols each of them had; int64 [n].
        """
        self._calls += 1
        self._total_rows += rows
        if self._calls > 1:
            size = rows * positions
            calls = self._measured.setdefault(size.bit_length(), collections.deque(maxlen=MEASURED_CALLS))
            calls.append((seconds / size, size))
        self._ended_count += len(ended)
        self._ended += np.bincount(np.minimum(ended, LONGEST_TOLD_APART), minlength=len(self._ended))

    def _choose_positions(self, lengths: NDArray[np.int64], low: int, high: int) -> int:
        """Return the positions of a call of rows with these lengths after which the best calls end them soonest."""
        if low == high:
            return low
        sizes = np.arange(low, high + 1)
        lengths, counts = np.unique(lengths, return_counts=True)
        seconds_left = self._seconds_left[lengths[:, None] + sizes] / np.maximum(self._going_on[lengths], 1e-9)[:, None]
        return int(sizes[(counts.sum() * self._position_seconds * sizes + counts @ seconds_left).argmin()])

    def _choose_best(self, lengths: NDArray[np.int64]) -> None:
        """Find the best number of positions for each length; ``lengths`` are those of records that have not ended."""
        self._chosen_at = self._ended_count
        call, self._position_seconds = self._fit_seconds()
        # The estimate of Kaplan and Meier: what has not ended yet counts up to the length that it has.
        reached = (self._ended + np.bincount(lengths, minlength=len(self._ended)))[::-1].cumsum()[::-1]
        end = int(np.flatnonzero(reached)[-1])
        self._going_on[:] = 0
        self._going_on[:end] = np.cumprod(1 - self._ended[:end] / reached[:end])
        self._seconds_left[:] = 0
        self._best[:] = min(max(1, int(UNKNOWN_PART * end)), MAX_POSITIONS)
        seconds = call + self._position_seconds * np.arange(1, MAX_POSITIONS + 1)
        for length in range(end - 1, -1, -1):
            totals = self._going_on[length] * seconds + self._seconds_left[length + 1 : length + 1 + MAX_POSITIONS]
            best = int(totals.argmin())
            self._best[length], self._seconds_left[length] = best + 1, totals[best]

    def _fit_seconds(self) -> tuple[float, float]:
        """Return the seconds that a call takes by itself, and those of a position, both for each of its rows."""
        # The median call of each order of magnitude: a few calls wait for other programs.
        seconds, sizes = np.array([sorted(calls)[len(calls) // 2] for calls in self._measured.values()]).T
        if len(sizes) < 2:
            return float(seconds[0]), float(seconds[0])
        call, position = np.polyfit(1 / sizes, seconds, 1)
        mean_rows = self._total_rows / self._calls
        return max(float(call) / mean_rows, 0.0), max(float(position), 1e-9)
