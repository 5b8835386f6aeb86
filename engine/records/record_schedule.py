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

from gentext.generation.model_calls import MAX_POSITIONS
from gentext.settings import cores

#: What a call costs beside its positions, in positions: until calls were measured, at least and at most.
FIRST_CALL_COST, MIN_CALL_COST, MAX_CALL_COST = 1.0, 0.25, 16.0
#: Positions of a call before a record has ended.
FIRST_POSITIONS = 8
#: The choice is made anew when so many times the records have ended as when it was made before.
NEW_CHOICE = 1.5
#: Longer records count as if they had so many symbols.
MAX_LENGTH = 4096
#: Rows of a call for each core, if so many are busy: of so many rows or of more, a position takes as long for each row.
CORE_ROWS = 64
#: Up to so many times as many rows share a call where their best numbers of positions differ by less than that factor.
MAX_ROWS_FACTOR, MAX_POSITIONS_FACTOR = 2, 1.5
#: How many of the last calls of each number of positions are remembered, and how many are needed before they count. The
#: time below which this share of them lies counts: calls that wait for other programs take longer.
MEASURED_CALLS, MIN_MEASURED_CALLS, MEASURED_QUANTILE = 32, 4, 0.25
#: A record that is longer than all that have ended is expected to go on for this part of its length.
UNKNOWN_PART = 1 / 4


class RecordSchedule:
    """Chooses the rows and positions of a call by what calls took, and how long the records were that have ended.

    A call of K positions takes the time of c + K positions. A record that has e symbols still takes, with the best
    calls, V(e): the least of c + K + P(more than e + K symbols | more than e) V(e + K) over all K. Times and lengths
    decide when a symbol is drawn, never which one.
    """

    def __init__(self) -> None:
        self._rows = CORE_ROWS * cores()
        self._call_cost = FIRST_CALL_COST
        """How many positions take as long as a call does beside its own."""
        self._row_seconds: dict[int, collections.deque[float]] = {}
        """How long the last calls of each number of positions took, in seconds for each of their rows."""
        self._ended = np.zeros(MAX_LENGTH + 1, np.int64)
        """How many records of each number of symbols have ended."""
        self._ended_count = self._chosen_at = 0
        """How many records have ended, and how many had when the choice below was made."""
        self._best = np.full(MAX_LENGTH + 1, FIRST_POSITIONS)
        """The best number of positions for a row, by the symbols that it has."""
        self._going_on = np.ones(MAX_LENGTH + 1 + MAX_POSITIONS)
        """The share of records with more symbols than so many."""
        self._time_left = np.zeros(MAX_LENGTH + 1 + MAX_POSITIONS)
        """That share, times the time for which these records go on with the best calls, in positions."""

    def choose_call(self, lengths: NDArray[np.int64], last_calls: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
        """Return which of the busy rows share the next call, and its positions.

        :param lengths: how many symbols each row has; int64 [n], n is at least 1.
        :param last_calls: the number of the last call in which each row was; int64 [n]. The one that has waited longest
            is in the next call.
        """
        lengths = np.minimum(lengths, MAX_LENGTH)
        if self._ended_count > NEW_CHOICE * self._chosen_at:
            self._choose_best(lengths)
        sizes = self._best[lengths]
        distances = np.abs(np.log(sizes / sizes[last_calls.argmin()]))
        rows = np.lexsort((last_calls, distances))[: MAX_ROWS_FACTOR * self._rows]
        rows = rows[: max(self._rows, np.searchsorted(distances[rows], np.log(MAX_POSITIONS_FACTOR)))]
        return rows, self._choose_positions(lengths[rows], int(sizes[rows].min()), int(sizes[rows].max()))

    def record_call(self, rows: int, positions: int, seconds: float, ended: NDArray[np.int64]) -> None:
        """Remember a call: how long it took with all that is done for it, and the records that ended in it.

        :param ended: how many symbols each of them had; int64 [n].
        """
        self._row_seconds.setdefault(positions, collections.deque(maxlen=MEASURED_CALLS)).append(seconds / rows)
        self._ended_count += len(ended)
        self._ended += np.bincount(np.minimum(ended, MAX_LENGTH), minlength=len(self._ended))

    def _choose_positions(self, lengths: NDArray[np.int64], low: int, high: int) -> int:
        """Return the positions of a call of rows with these lengths after which the best calls end them soonest."""
        if low == high:
            return low
        sizes = np.arange(low, high + 1)
        lengths, counts = np.unique(lengths, return_counts=True)
        time_left = self._time_left[lengths[:, None] + sizes] / np.maximum(self._going_on[lengths], 1e-9)[:, None]
        return int(sizes[(counts.sum() * sizes + counts @ time_left).argmin()])

    def _choose_best(self, lengths: NDArray[np.int64]) -> None:
        """Find the best number of positions for each length; ``lengths`` are those of records that have not ended."""
        self._chosen_at = self._ended_count
        self._measure_call_cost()
        # The estimate of Kaplan and Meier: what has not ended yet counts up to the length that it has.
        reached = (self._ended + np.bincount(lengths, minlength=len(self._ended)))[::-1].cumsum()[::-1]
        end = int(np.flatnonzero(reached)[-1])
        self._going_on[:] = 0
        self._going_on[:end] = np.cumprod(1 - self._ended[:end] / reached[:end])
        self._time_left[:] = 0
        self._best[:] = min(max(1, int(UNKNOWN_PART * end)), MAX_POSITIONS)
        times = self._call_cost + np.arange(1, MAX_POSITIONS + 1)
        for length in range(end - 1, -1, -1):
            totals = self._going_on[length] * times + self._time_left[length + 1 : length + 1 + MAX_POSITIONS]
            best = int(totals.argmin())
            self._best[length], self._time_left[length] = best + 1, totals[best]

    def _measure_call_cost(self) -> None:
        """Find out how many positions take as long as a call does, from calls of different numbers of positions."""
        measured = [
            (positions, np.quantile(seconds, MEASURED_QUANTILE), len(seconds))
            for positions, seconds in self._row_seconds.items()
            if len(seconds) >= MIN_MEASURED_CALLS
        ]
        if len(measured) < 2:
            return
        positions, seconds, counts = np.array(measured).T
        # An error of a time is a part of it.
        position, call = np.polyfit(positions, seconds, 1, w=np.sqrt(counts) / seconds)
        self._call_cost = float(np.clip(call / max(position, 1e-12), MIN_CALL_COST, MAX_CALL_COST))
