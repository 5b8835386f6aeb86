"""What may follow the beginning of a text, and where a text ends, as tables over the symbols of a model.

`gentext.search.best` searches among all texts of a model, so it must know for each beginning which symbols may follow,
and which of them make a text complete. A text ends before a stop string or at a number of characters; or it is complete
wherever all of it matches an expression. A record ends with the boundary symbol, where it matches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gentext.errors import UsageError
from gentext.exported.metadata import readable_symbol
from gentext.stop import StopAutomaton

if TYPE_CHECKING:  # most searches have none
    from gentext.matching.match import MatchAutomaton

#: The bytes that may continue a character, as ranges with both ends.
CONTINUATION = (0x80, 0xBF)
#: What continues a character after its first byte, by ranges of that byte: the table of well-formed UTF-8 in the
#: Unicode standard, chapter 3.9. A byte that is not here begins no character of several bytes.
CONTINUATIONS_BY_FIRST_BYTE = {
    range(0xC2, 0xE0): (CONTINUATION,),
    range(0xE0, 0xE1): ((0xA0, 0xBF), CONTINUATION),
    range(0xE1, 0xED): (CONTINUATION, CONTINUATION),
    range(0xED, 0xEE): ((0x80, 0x9F), CONTINUATION),
    range(0xEE, 0xF0): (CONTINUATION, CONTINUATION),
    range(0xF0, 0xF1): ((0x90, 0xBF), CONTINUATION, CONTINUATION),
    range(0xF1, 0xF4): (CONTINUATION, CONTINUATION, CONTINUATION),
    range(0xF4, 0xF5): ((0x80, 0x8F), CONTINUATION, CONTINUATION),
}
#: Columns of a position: the states of three automata, over characters, stop strings and an expression, and the
#: number of characters.
CHARACTER, STOP, MATCH, COUNT = range(4)
#: What ends a text, as in `gentext.interfaces.Finish`.
TextFinish = Literal["stop", "length", "match", "end"]
Booleans = NDArray[np.bool_]
Numbers = NDArray[np.int64]


class Following(NamedTuple):
    """What each of V symbols does behind each of N beginnings: bool [N, V]."""

    completes: Booleans
    """With the symbol, the beginning is a text."""
    continues: Booleans
    """The symbol may be written, and others may follow it."""


class TextEndings:
    """The symbols that may follow a beginning, and those with which it is a text.

    A position (int64 [4]) is all that must be known of a beginning for that: see `CHARACTER` and the names beside it.
    Bytes that are no UTF-8 are never written, so different tokens are different texts.

    :param token_bytes: the bytes of each symbol.
    :param unknown: the symbol that is never written, or None.
    :param length: characters of a text at most.
    :param stop: the stop strings, each of which ends a text that it is not part of.
    :param match: the texts that are complete, instead of those that stop strings or the length end.
    :param boundary: the symbol that ends texts, instead of the length; with ``match`` those that match, whole.
    :param allows_empty: whether the boundary symbol may end the empty text.

    The symbols must have one spelling of each text: see `check_spelling`.
    """

    def __init__(
        self,
        token_bytes: Sequence[bytes],
        unknown: int | None,
        length: int,
        stop: StopAutomaton | None = None,
        match: MatchAutomaton | None = None,
        boundary: int | None = None,
        *,
        allows_empty: bool = True,
    ) -> None:
        self.length, self._boundary, self._allows_empty = length, boundary, allows_empty
        self.finish: TextFinish = "end" if boundary is not None else "length" if match is None else "match"
        """What ends the texts that no stop string ends."""
        self.has_stops = stop is not None
        self._character_table = _character_table(token_bytes, unknown)
        self._stop_table = np.zeros((1, len(token_bytes)), np.int64)
        self._matched = self._pending = np.zeros(1, np.int64)
        if stop is not None:
            self._stop_table = stop.token_table(token_bytes)
            self._matched, self._pending = stop.matched, stop.pending
        self.stop_states = len(self._matched)
        """States of the automaton of the stop strings: so many beginnings of stop strings there are at most."""
        self._match = match
        self._match_table = np.zeros((1, len(token_bytes)), np.int64) if match is None else match.transitions
        self._onward = np.zeros(1) if match is None else match.onward
        """The least characters from each state to the end of a longer text; infinite where there is none."""
        self._distance = np.zeros(1, np.int64) if match is None else match.distance
        """The least characters from each state to the end of a text."""

    def is_text(self, position: tuple[int, ...]) -> bool:
        """Return whether the empty text, which has this position, is complete."""
        is_matched = self._match is not None and bool(self._match.final[position[MATCH]])
        return is_matched and self._boundary is None

    def may_end_record(self, positions: Numbers) -> Booleans:
        """Return whether the boundary symbol may follow at positions [N, 4], where no expression forbids it [N]."""
        least_count = 0 if self._allows_empty else 1
        may_end: Booleans = (positions[:, CHARACTER] == 0) & (positions[:, COUNT] >= least_count)
        return may_end

    def advance(self, positions: Numbers, tokens: Numbers) -> Numbers:
        """Return the positions [N, 4] after a token of each of N beginnings."""
        character_states = self._character_table[positions[:, CHARACTER], tokens]
        stop_states = self._stop_table[positions[:, STOP], tokens]
        match_states = self._match_table[positions[:, MATCH], tokens]
        counts = positions[:, COUNT] + (character_states == 0)
        return np.stack([character_states, stop_states, match_states, counts], axis=1)

    def follow(self, positions: Numbers) -> Following:
        """Return what each symbol does at positions [N, 4].

        Those that complete a stop string are left out; with stop strings, also the boundary symbol, see `follow_stop`.
        """
        character_states = self._character_table[positions[:, CHARACTER]]
        match_states = self._match_table[positions[:, MATCH]]
        is_allowed = (character_states >= 0) & (match_states >= 0)
        is_allowed &= self._matched[self._stop_table[positions[:, STOP]]] == 0
        counts = positions[:, COUNT, None] + (character_states == 0)
        begun_counts = counts + (character_states > 0)
        if self._boundary is not None:
            completes = np.zeros_like(is_allowed)
            if not self.has_stops:
                is_final = self._distance[positions[:, MATCH]] == 0
                completes[:, self._boundary] = is_final & self.may_end_record(positions)
            return Following(completes, is_allowed & (begun_counts + self._distance[match_states] <= self.length))
        if self._match is None:
            completes = is_allowed & (character_states == 0) & (counts == self.length)
            return Following(completes, is_allowed & ~completes)
        completes = is_allowed & self._match.final[match_states] & (begun_counts <= self.length)
        return Following(completes, is_allowed & (begun_counts + self._onward[match_states] <= self.length))

    def follow_stop(self, positions: Numbers, text_counts: Numbers) -> Following:
        """Return what each symbol does where stop strings are written behind texts, which they complete.

        A text may have several endings that are not part of it, each of which is the end of a stop string: all of it,
        or less where the stop string began in the prime. ``positions`` [N, 4] are those after the first part of an
        ending, and ``text_counts`` [N] the characters of the text before it. A symbol completes the ending when the
        text is cut there; it continues it when a stop string may still be completed. The boundary symbol completes an
        ending of its own, which has nothing before it.
        """
        character_states = self._character_table[positions[:, CHARACTER]]
        stop_states = self._stop_table[positions[:, STOP]]
        matched = self._matched[stop_states]
        counts = positions[:, COUNT, None] + (character_states == 0)
        written = counts - text_counts[:, None] + (character_states > 0)  # characters of the ending, begun ones too
        # A stop string that begins in the prime cuts off all that was written, which leaves the empty text.
        is_cut = np.where(text_counts[:, None] == 0, matched >= written, matched == written)
        completes = (character_states == 0) & (matched > 0) & is_cut & (counts <= self.length)
        if self._boundary is not None:
            completes[:, self._boundary] = self.may_end_record(positions) & (positions[:, COUNT] == text_counts)
        may_go_on = (character_states >= 0) & (matched == 0) & (counts < self.length)
        return Following(completes, may_go_on & (self._pending[stop_states] >= written))


def check_spelling(token_bytes: Sequence[bytes], unknown: int | None) -> None:
    """Raise UsageError unless every text has at most one spelling in symbols.

    That is sure where each symbol is one character or one byte, and no character is both a symbol and several of them.
    A symbol of several characters may be cut where a text ends, and then others spell the same text.
    """
    symbols = [symbol for token, symbol in enumerate(token_bytes) if token != unknown]
    for symbol in symbols:
        if len(symbol) != 1 and not _is_character(symbol):
            raise UsageError(
                f"the symbol {readable_symbol(symbol)!r} is neither a character nor a byte, so one text may have "
                f"several spellings; gen best needs a tokenizer of characters or bytes, such as char and byte"
            )
    single_bytes = {symbol[0] for symbol in symbols if len(symbol) == 1}
    for symbol, count in Counter(symbols).items():
        if count > 1 or (len(symbol) > 1 and single_bytes.issuperset(symbol)):
            raise UsageError(
                f"{readable_symbol(symbol)!r} has several spellings in the model's symbols, so texts would not be "
                f"distinct; gen best needs a tokenizer with one spelling of each text, such as char and byte"
            )


def _is_character(symbol: bytes) -> bool:
    try:
        return len(symbol.decode()) == 1
    except UnicodeDecodeError:
        return False


def _character_table(token_bytes: Sequence[bytes], unknown: int | None) -> Numbers:
    """Return int64 [states, V]: the state after each symbol, -1 where it would be no UTF-8.

    State 0 is that between two characters. Each other stands for the bytes that must follow to complete a character.
    """
    states: list[tuple[tuple[int, int], ...]] = list(dict.fromkeys([(), *CONTINUATIONS_BY_FIRST_BYTE.values()]))
    table = np.full((len(states), len(token_bytes)), -1, np.int64)
    for token, symbol in enumerate(token_bytes):
        if token == unknown:
            continue
        if _is_character(symbol):
            table[0, token] = 0
            continue
        if not symbol:  # the boundary symbol, which ends a text; `check_spelling` refuses others
            continue
        for state, ranges in enumerate(states):
            if not ranges:
                following = [ranges for first, ranges in CONTINUATIONS_BY_FIRST_BYTE.items() if symbol[0] in first]
            else:
                low, high = ranges[0]
                following = [ranges[1:]] if low <= symbol[0] <= high else []
            if following:
                table[state, token] = states.index(following[0])
    return table
