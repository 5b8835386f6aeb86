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
    """The automaton of some stop strings.

    ``held[s]`` is how many characters read so far may still become a stop string; ``matched[s]``
    is how many characters the stop string has that was found in state s, else 0.
    """

    START = 0

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise UsageError("--stop '': expected at least one character")
        prefixes = [b""]
        seen = {b"": 0}
        for stop in stops:
            data = stop.encode()
            for end in range(1, len(data) + 1):
                if data[:end] not in seen:
                    seen[data[:end]] = len(prefixes)
                    prefixes.append(data[:end])
        whole = {stop.encode(): len(stop) for stop in stops}
        self.held = np.array([_characters(prefix) for prefix in prefixes], np.int64)
        self.matched = np.zeros(len(prefixes), np.int64)
        self._next = np.zeros((len(prefixes), 256), np.int64)
        for state, prefix in enumerate(prefixes):
            # A stop string may end inside a longer one: the longest that ends here counts.
            self.matched[state] = max((whole[p] for p in whole if prefix.endswith(p)), default=0)
            for byte in range(256):
                self._next[state, byte] = _longest_suffix(prefix + bytes([byte]), seen)

    def advance(self, state: int, data: bytes) -> int:
        """Return the state after some bytes; a match on the way is final."""
        for byte in data:
            if self.matched[state]:
                break
            state = int(self._next[state, byte])
        return state

    def token_table(self, token_bytes: Sequence[bytes]) -> NDArray[np.int64]:
        """Return [states, V]: the state after each token."""
        rows = [[self.advance(state, data) for data in token_bytes] for state in range(len(self.held))]
        return np.array(rows, np.int64).reshape(len(self.held), len(token_bytes))


def _characters(prefix: bytes) -> int:
    """Return how many characters begin in these bytes."""
    return sum(byte & 0xC0 != 0x80 for byte in prefix)


def _longest_suffix(data: bytes, seen: dict[bytes, int]) -> int:
    return next(seen[data[cut:]] for cut in range(len(data) + 1) if data[cut:] in seen)
