"""Stop strings as one automaton over the bytes of tokens, so that it serves any tokenizer.

Aho and Corasick, "Efficient string matching", CACM 1975: a state is the longest suffix of what
was read that is a prefix of some stop string. Reaching a whole stop string is final.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gentext.errors import UsageError


class StopAutomaton:
    """The automaton of some stop strings, which finds those that end in new text.

    ``held[s]`` is how many characters read so far may still become a stop string; ``matched[s]``
    is how many characters the stop string has that was found in state s, else 0.
    """

    START = 0

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise UsageError("--stop '': expected at least one character")
        for stop in stops:
            if not is_text(stop):
                raise UsageError(f"--stop {stop!r}: not text in UTF-8, so it would never be found")
        whole = {stop.encode(): len(stop) for stop in stops}
        prefixes = sorted({b"", *(stop[:end] for stop in whole for end in range(1, len(stop) + 1))}, key=len)
        number = {prefix: state for state, prefix in enumerate(prefixes)}
        self.held = np.array([_characters(prefix) for prefix in prefixes], np.int64)
        self.matched = np.zeros(len(prefixes), np.int64)
        self._next = np.zeros((len(prefixes), 256), np.int64)
        back = np.zeros(len(prefixes), np.int64)  # the state of the longest shorter suffix
        for state, prefix in enumerate(prefixes):
            if len(prefix) > 1:
                back[state] = self._next[back[number[prefix[:-1]]], prefix[-1]]
            # A stop string may end inside a longer one: the longest that ends here counts.
            self.matched[state] = max(whole.get(prefix, 0), self.matched[back[state]])
            self._next[state] = self._next[back[state]]
            for byte in range(256):
                longer = number.get(prefix + bytes([byte]))
                if longer is not None:
                    self._next[state, byte] = longer

    def behind(self, prime: bytes) -> int:
        """Return the state behind a prime: a stop string may begin there, one that ends there is past."""
        state = self.START
        for byte in prime:
            state = int(self._next[state, byte])
        return state

    def advance(self, state: int, data: bytes) -> int:
        """Return the state after some new bytes; a match on the way is final."""
        for byte in data:
            state = int(self._next[state, byte])
            if self.matched[state]:
                break
        return state

    def token_table(self, token_bytes: Sequence[bytes]) -> NDArray[np.int64]:
        """Return [states, V]: the state after each token."""
        # A symbol without bytes stays where it is, but what matched in the prime must not match again.
        still = [self.START if matched else state for state, matched in enumerate(self.matched)]
        rows = [
            [self.advance(state, data) if data else still[state] for data in token_bytes]
            for state in range(len(self.held))
        ]
        return np.array(rows, np.int64).reshape(len(self.held), len(token_bytes))


def is_text(text: str) -> bool:
    """Tell whether a text can be written as UTF-8; what a command line carries may have half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _characters(prefix: bytes) -> int:
    """Return how many characters begin in these bytes."""
    return sum(byte & 0xC0 != 0x80 for byte in prefix)
