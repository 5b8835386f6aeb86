"""How many positions the calls of a compiled generator have, where texts begin and end between calls."""

from __future__ import annotations

from gentext.generation.model_calls import MAX_POSITIONS

#: Positions of a call, at least: with fewer, what a call costs by itself would take a good part of the time.
MIN_POSITIONS = 12
#: Calls in which a text of the usual length is drawn, at least: on average it ends in the middle of its last call.
CALLS_OF_A_TEXT = 4
#: The share of the last text in the usual length.
LAST_TEXT_SHARE = 0.1


class Schedule:
    """Chooses how many positions a call has: few while a text waits for its first symbol, many while none does.

    Times and lengths decide when a symbol is drawn, never which one.
    """

    def __init__(self, chunk_seconds: float, first_seconds: float) -> None:
        self.chunk_seconds, self.first_seconds = chunk_seconds, first_seconds
        self._position_seconds: dict[int, float] = {}
        """Seconds of a position in the last call of 2^(n-1) to 2^n - 1 rows, by n."""
        self._usual_length: float | None = None
        """Symbols of the texts that have ended, where later ones count for more."""

    def choose_positions(self, rows: int, waits: bool, batches: int, longest: int = MAX_POSITIONS) -> int:
        """Return the positions of a call of so many rows, where as many batches take turns.

        No call has more than the longest of the texts has symbols, as a text may end soon.
        """
        if not self._position_seconds:
            return 1
        size = rows.bit_length()
        nearest = min(self._position_seconds, key=lambda measured: abs(measured - size))
        # Twice the rows take at most twice the time, and half of them may take as long.
        position_seconds = self._position_seconds[nearest] * 2.0 ** max(0, size - nearest)
        seconds = (self.first_seconds if waits else self.chunk_seconds) / batches
        limit = longest if self._usual_length is None else min(longest, self._usual_length / CALLS_OF_A_TEXT)
        return max(MIN_POSITIONS, int(min(limit, seconds / max(position_seconds, 1e-9))))

    def record_call(self, rows: int, positions: int, seconds: float) -> None:
        """Remember how long a call took."""
        self._position_seconds[rows.bit_length()] = seconds / positions

    def record_end(self, length: int) -> None:
        """Remember how many symbols a text had that has ended."""
        usual_length = length if self._usual_length is None else self._usual_length
        self._usual_length = usual_length + LAST_TEXT_SHARE * (length - usual_length)
