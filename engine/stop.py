"""Stop strings as one automaton over bytes, so that it works with the tokens of any tokenizer.

Aho and Corasick, "Efficient string matching", CACM 1975: a state stands for the longest suffix of
the text read so far that is a prefix of some stop string. A state in which a stop string ends is final.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from gentext.errors import UsageError

__all__ = ["StopAutomaton"]


class StopAutomaton:
    """The automaton of some stop strings, which finds those that end in new text.

    ``pending[s]`` (int64 [states]) is the number of characters at the end of the text that may still
    become a stop string. ``matched[s]`` (int64 [states]) is the length in characters of the longest
    stop string that ends in state s, or 0. Raises UsageError for a stop string that cannot occur.
    """

    START_STATE = 0

    def __init__(self, stops: Sequence[str]) -> None:
        for stop in stops:
            problem = stop_problem(stop)
            if problem:
                raise UsageError(f"stop string {stop!r}: {problem}")
        length_by_stop = {stop.encode(): len(stop) for stop in stops}
        prefixes = sorted({b"", *(stop[:end] for stop in length_by_stop for end in range(1, len(stop) + 1))}, key=len)
        state_by_prefix = {prefix: state for state, prefix in enumerate(prefixes)}
        self.pending = np.array([_count_characters(prefix) for prefix in prefixes], np.int64)
        self.matched = np.zeros(len(prefixes), np.int64)
        self._transitions = np.zeros((len(prefixes), 256), np.int64)
        # The state of the longest proper suffix of each prefix; shorter prefixes come first, so it is complete.
        suffix_states = np.zeros(len(prefixes), np.int64)
        for state, prefix in enumerate(prefixes):
            if len(prefix) > 1:
                suffix_states[state] = self._transitions[suffix_states[state_by_prefix[prefix[:-1]]], prefix[-1]]
            # Several stop strings may end in one state, each a suffix of the next: the longest counts.
            self.matched[state] = max(length_by_stop.get(prefix, 0), self.matched[suffix_states[state]])
            self._transitions[state] = self._transitions[suffix_states[state]]
            for byte in range(256):
                longer_state = state_by_prefix.get(prefix + bytes([byte]))
                if longer_state is not None:
                    self._transitions[state, byte] = longer_state

    def state_after_prime(self, prime: bytes) -> int:
        """Return the state after a prime: a stop string may begin in a prime, but one that ends in it is ignored."""
        state = self.START_STATE
        for byte in prime:
            state = int(self._transitions[state, byte])
        return state

    def advance(self, state: int, new_bytes: bytes) -> int:
        """Return the state after some new bytes: the first final one, else that after the last byte."""
        for byte in new_bytes:
            state = int(self._transitions[state, byte])
            if self.matched[state]:
                break
        return state

    def token_table(self, token_bytes: Sequence[bytes]) -> NDArray[np.int64]:
        """Return int64 [states, V]: the state after each token of V, from each state."""
        # A symbol without bytes changes no state. From a final state, which only the prime can lead to, it returns
        # to the start, so that a stop string of the prime does not match.
        states_without_bytes = [self.START_STATE if matched else state for state, matched in enumerate(self.matched)]
        table = [
            [self.advance(state, symbol) if symbol else states_without_bytes[state] for symbol in token_bytes]
            for state in range(len(self.pending))
        ]
        return np.array(table, np.int64).reshape(len(self.pending), len(token_bytes))


def stop_problem(stop: str) -> str | None:
    """Return why a stop string cannot occur in a text, or None where it can."""
    if not stop:
        return "expected at least one character"
    try:
        stop.encode()
    except UnicodeEncodeError:  # an argument of a command line may have half a surrogate pair
        return "not text in UTF-8, so it would never be found"
    return None


def find_unwritable(stops: Sequence[str], symbols: Iterable[bytes]) -> dict[str, str]:
    """Return the stop strings that no text of these symbols contains, each with its first character that they lack.

    A symbol may be a part of a character: such a character counts as written where its bytes occur in such symbols.
    """
    whole_characters: set[str] = set()
    fragment_bytes: set[int] = set()
    for symbol in symbols:
        try:
            whole_characters.update(symbol.decode())
        except UnicodeDecodeError:
            fragment_bytes.update(symbol)
    unwritable: dict[str, str] = {}
    for stop in stops:
        for character in stop:
            if character not in whole_characters and not fragment_bytes.issuperset(character.encode()):
                unwritable.setdefault(stop, character)
    return unwritable


def _count_characters(prefix: bytes) -> int:
    """Return the number of characters that begin in some bytes of UTF-8."""
    return sum(byte & 0xC0 != 0x80 for byte in prefix)
