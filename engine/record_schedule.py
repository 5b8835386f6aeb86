"""How many positions the calls have that write records: few where records are short, many where a call is dear."""

from __future__ import annotations

import numpy as np

from gentext.compiled import MAX_POSITIONS

#: Positions of the first calls, of which the later ones learn how long a call and a position take.
FIRST_POSITIONS = (4, 16)
#: The choice is made anew when so many times the records have ended as when it was made before.
NEW_CHOICE = 1.5
#: Symbols of a record from which on the schedule does not tell lengths apart.
LONGEST_TOLD_APART = 4096
#: Rows of calls whose times are compared: those with half as many do not count.
LIKE_ROWS = 0.5


class RecordSchedule:
    """Chooses the positions of a call by what calls took, and how long the records were that have ended.

    A record of L symbols takes ceil(L / K) calls of K positions, and is idle at the end of the last one. So a row
    writes a symbol in E[ceil(L / K)] (a + b K) / E[L] seconds, where a call takes a + b K: the best K is that with the
    least product. Times and lengths decide when a symbol is drawn, never which one.
    """

    def __init__(self) -> None:
        self._graph_seconds: dict[int, float] = {}
        """The least seconds that the graph took in a call, by its positions: other programs only add to them."""
        self._own_seconds = float("inf")
        """The least seconds of a call besides those of the graph."""
        self._rows = 0
        """The most rows that a call had."""
        self._calls = 0
        self._counts = np.zeros(LONGEST_TOLD_APART + 1, np.int64)
        """How many records of each number of symbols have ended."""
        self._choice, self._choice_at = 0, 0.0

    def choose_positions(self) -> int:
        """Return the positions of the next call."""
        if self._calls <= len(FIRST_POSITIONS):  # the first call is not measured
            return FIRST_POSITIONS[max(0, self._calls - 1)]
        ended = int(self._counts.sum())
        if not ended:
            return FIRST_POSITIONS[-1]
        if ended >= NEW_CHOICE * self._choice_at:
            self._choice, self._choice_at = self._find_best(), ended
        return self._choice

    def record_call(self, rows: int, positions: int, graph_seconds: float, own_seconds: float) -> None:
        """Remember how long the graph took in a call, and what is done before and behind it."""
        self._calls += 1
        self._rows = max(self._rows, rows)
        if self._calls > 1 and rows > LIKE_ROWS * self._rows:
            self._graph_seconds[positions] = min(graph_seconds, self._graph_seconds.get(positions, graph_seconds))
            self._own_seconds = min(own_seconds, self._own_seconds)

    def record_ends(self, lengths: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        """Remember how many symbols records had that have ended: int64 [n]."""
        np.add.at(self._counts, np.minimum(lengths, LONGEST_TOLD_APART), 1)

    def _find_best(self) -> int:
        call, position = self._fit_seconds()
        sizes, lengths = np.arange(1, MAX_POSITIONS + 1), np.flatnonzero(self._counts)
        calls = np.ceil(lengths[:, None] / sizes)
        seconds = self._counts[lengths] @ calls * (call + position * sizes)
        return int(sizes[seconds.argmin()])

    def _fit_seconds(self) -> tuple[float, float]:
        """Return the seconds that a call takes by itself, and those of a position: a line through the calls."""
        sizes, seconds = np.array([*self._graph_seconds]), np.array([*self._graph_seconds.values()])
        if len(sizes) < 2:
            return 0.0, 1.0
        slope = np.cov(sizes, seconds)[0, 1] / sizes.var(ddof=1)
        position = max(float(slope), 1e-9)
        return self._own_seconds + max(float((seconds - position * sizes).mean()), 0.0), position
