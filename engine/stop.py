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

#: States times symbols of an automaton, at most: a table of 128 MB, or 65,535 bytes of stop strings with 256 symbols.
MAX_TABLE = 2**24


class StopAutomaton:
    """The automaton of some stop strings, which finds those that end in new text.

    ``pending[s]`` (int64 [states]) is the number of characters at the end of the text that may still
    become a stop string. ``matched[s]`` (int64 [states]) is the length in characters of the longest
    stop string that ends in state s, or 0. Raises UsageError for a stop string that cannot occur, and for stop strings
    that are too long together.
    """

    START_STATE = 0

    def __init__(self, stops: Sequence[str]) -> None:
        for stop in stops:
            problem = stop_problem(stop)
            if problem:
                raise UsageError(f"stop string {stop!r}: {problem}")
        length_by_stop = {stop.encode(): len(stop) for stop in stops}
        _check_size(1 + sum(map(len, length_by_stop)), 256)
        self._first_bytes = {stop[0] for stop in length_by_stop}
        children, final_states = _build_trie(list(length_by_stop))
        self.pending = np.zeros(len(children), np.int64)
        self.matched = np.zeros(len(children), np.int64)
        self.matched[final_states] = list(length_by_stop.values())
        self._transitions = np.zeros((len(children), 256), np.int32)
        # The state of the longest proper suffix of each prefix; shorter prefixes come first, so it is complete.
        suffix_states = np.zeros(len(children), np.int32)
        for state, child_by_byte in enumerate(children):
            row = self._transitions[state]
            row[:] = self._transitions[suffix_states[state]]
            for byte, child in child_by_byte.items():
                suffix_states[child] = row[byte]
                # Several stop strings may end in one state, each a suffix of the next: the longest counts.
                self.matched[child] = max(self.matched[child], self.matched[suffix_states[child]])
                self.pending[child] = self.pending[state] + begins_character(byte)
                row[byte] = child

    def state_after_prime(self, prime: bytes, state: int = START_STATE) -> int:
        """Return the state after a prime: a stop string may begin in a prime, but one that ends in it is ignored."""
        for byte in prime:
            state = int(self._transitions[state, byte])
        return state

    def advance(self, state: int, new_bytes: bytes) -> int:
        """Return the state after some new bytes: the first final one, else that after the last byte."""
        if state == self.START_STATE and self._first_bytes.isdisjoint(new_bytes):
            return state
        for byte in new_bytes:
            state = int(self._transitions[state, byte])
            if self.matched[state]:
                break
        return state

    def token_table(self, token_bytes: Sequence[bytes]) -> NDArray[np.int64]:
        """Return int64 [states, V]: the state after each token of V, from each state."""
        _check_size(len(self.pending), len(token_bytes))
        table = np.empty((len(self.pending), len(token_bytes)), np.int64)
        # A symbol without bytes changes no state. From a final state, which only the prime can lead to, it returns
        # to the start, so that a stop string of the prime does not match.
        start_states = np.arange(len(self.pending))
        states_without_bytes = np.where(self.matched > 0, self.START_STATE, start_states)
        for token, symbol in enumerate(token_bytes):
            states = start_states if symbol else states_without_bytes
            for position, byte in enumerate(symbol):
                next_states = self._transitions[states, byte]
                # A stop string that ended within the symbol counts.
                states = np.where(self.matched[states] > 0, states, next_states) if position else next_states
            table[:, token] = states
        return table


def _build_trie(stops: Sequence[bytes]) -> tuple[list[dict[int, int]], list[int]]:
    """Return the trie of some stop strings, and the state in which each of them ends.

    The trie has the next states by their byte, for each state. A state stands for a prefix of stop strings, state 0 for
    the empty one; those of shorter prefixes come first.
    """
    trie: list[dict[int, int]] = [{}]
    states = [0] * len(stops)
    numbers = list(range(len(stops)))  # of the stop strings that have a byte at the position
    position = 0
    while numbers:
        for number in numbers:
            byte = stops[number][position]
            child_by_byte = trie[states[number]]
            if byte not in child_by_byte:
                child_by_byte[byte] = len(trie)
                trie.append({})
            states[number] = child_by_byte[byte]
        position += 1
        numbers = [number for number in numbers if position < len(stops[number])]
    return trie, states


def _check_size(states: int, symbols: int) -> None:
    """Raise UsageError for an automaton whose table of states and symbols would take too much memory."""
    if states * symbols > MAX_TABLE:
        raise UsageError(
            f"the stop strings have {states - 1:,} bytes together; expected at most {MAX_TABLE // symbols - 1:,} with "
            f"{symbols:,} symbols"
        )


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


def begins_character(byte: int) -> bool:
    """Return whether a character begins with a byte of UTF-8."""
    return byte & 0xC0 != 0x80
