"""The texts that match an expression, as an automaton over the symbols of a model.

Every state can reach an end, and knows how many characters that takes. So whoever takes only symbols that fit into the
characters that are left always writes a whole text.
"""

from __future__ import annotations

import dataclasses
import functools
import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.matching.byte_automaton import ByteAutomaton
from gentext.matching.expression import ExpressionError
from gentext.matching.match_tables import link_tables
from gentext.stop import MAX_TABLE, begins_character


@dataclasses.dataclass(frozen=True)
class MatchAutomaton:
    """The texts that match some expressions, over V symbols; every state can reach an end."""

    transitions: NDArray[np.int64]
    """The next state, -1 where the symbol is forbidden [S, V]."""
    final: NDArray[np.bool_]
    """Whether a text may end there [S]."""
    distance: NDArray[np.int64]
    """The least number of characters from there to the end of a text [S]."""
    characters: NDArray[np.int64]
    """How many characters begin in each symbol [V]."""
    starts: NDArray[np.int64]
    """The first state of each expression, in the order in which they were stacked; -1 where no text matches."""
    boundary: int | None = None
    """The symbol that ends a text, and no other does; None: whatever the expression forbids ends it."""

    @property
    def start(self) -> int:
        """The first state of the only expression."""
        return int(self.starts[0])

    @functools.cached_property
    def link_tables(self) -> Mapping[str, NDArray[Any]]:
        """The tables that the link `match` reads, which all texts that match the same share."""
        return link_tables(self)

    @functools.cached_property
    def onward(self) -> NDArray[np.float64]:
        """The least characters from each state to the end of a longer text; infinite where there is none [S]."""
        least: NDArray[np.float64] = self.needs.min(axis=1, initial=np.inf)
        return least

    @property
    def needs(self) -> NDArray[np.float64]:
        """The least characters to an end through each symbol, with its own; infinite where it is forbidden [S, V]."""
        return np.where(self.transitions >= 0, self.characters + self.distance[self.transitions], np.inf)


def build_automaton(
    byte_automaton: ByteAutomaton,
    symbols: Sequence[bytes],
    is_allowed: NDArray[np.bool_],
    byte_starts: Sequence[int] | None = None,
    max_table: int = MAX_TABLE,
) -> MatchAutomaton:
    """Return the automaton over those of V symbols that are allowed [V], without the states that reach no end.

    ``byte_starts`` are states of the automaton over bytes to begin from, None for its own first one; the result has
    a start for each. Symbols without bytes are never allowed. Raises ExpressionError where the table has more than
    ``max_table`` elements.

    The automaton is not minimised: of the 285 states of the expressions of `benchmarks/match.py` that would leave out
    9, and take longer than to build them.
    """
    byte_starts = [byte_automaton.start] if byte_starts is None else byte_starts
    characters = np.array([count_characters(symbol) for symbol in symbols], np.int64)
    usable = [token for token, symbol in enumerate(symbols) if symbol and is_allowed[token]]
    states, rows = _explore(byte_automaton, [symbols[token] for token in usable], byte_starts, max_table)
    if len(states) * len(symbols) > max_table:
        raise _too_large(len(states), len(symbols), max_table)
    transitions = np.full((len(states), len(symbols)), -1, np.int64)
    transitions[:, usable] = rows
    final = byte_automaton.final[states]
    distance = _measure_distances(transitions, final, characters)
    # Leave out the states that reach no end.
    live_states = np.flatnonzero(distance >= 0)
    numbers = np.full(len(states) + 1, -1, np.int64)  # the last one stands for no state
    numbers[live_states] = np.arange(len(live_states))
    number_by_state = dict(zip(states.tolist(), numbers.tolist(), strict=False))
    starts = np.array([number_by_state.get(state, -1) for state in byte_starts], np.int64)
    return MatchAutomaton(
        numbers[transitions[live_states]], final[live_states], distance[live_states], characters, starts
    )


def stack_automata(automata: Sequence[MatchAutomaton]) -> MatchAutomaton:
    """Return one automaton for several of the same symbols, each with its own starts.

    Raises ExpressionError where the table is too large.
    """
    if len(automata) == 1:
        return automata[0]
    sizes = [len(automaton.final) for automaton in automata]
    offsets = np.cumsum([0, *sizes[:-1]])
    symbol_count = len(automata[0].characters)
    if sum(sizes) * symbol_count > MAX_TABLE:
        raise _too_large(sum(sizes), symbol_count, MAX_TABLE)

    def join(arrays: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        return np.concatenate(
            [np.where(array >= 0, array + offset, -1) for array, offset in zip(arrays, offsets, strict=True)]
        )

    return MatchAutomaton(
        join([automaton.transitions for automaton in automata]),
        np.concatenate([automaton.final for automaton in automata]),
        np.concatenate([automaton.distance for automaton in automata]),
        automata[0].characters,
        join([automaton.starts for automaton in automata]),
        automata[0].boundary,
    )


def count_characters(symbol: bytes) -> int:
    """Return how many characters of UTF-8 begin in a symbol."""
    return sum(map(begins_character, symbol))


def _too_large(states: int, symbols: int, max_table: int) -> ExpressionError:
    return ExpressionError(
        f"it needs {states:,} states for {symbols:,} symbols; at most {max_table // symbols:,} are possible"
    )


def _explore(
    byte_automaton: ByteAutomaton, symbols: Sequence[bytes], byte_starts: Sequence[int], max_table: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the states of an automaton over bytes that symbols reach [S], and their table [S, symbols].

    The numbers in the table are indices into the first array.
    """
    state_count = len(byte_automaton.final)
    # One more state, the last, from which no text goes on.
    table = np.full((state_count + 1, 256), state_count, np.int64)
    table[:state_count] = np.where(byte_automaton.transitions < 0, state_count, byte_automaton.transitions)
    numbers = np.full(state_count + 1, -1, np.int64)
    states: list[NDArray[np.int64]] = []
    rows: list[NDArray[np.int64]] = []
    count = 0
    frontier = np.unique(np.array([state for state in byte_starts if state >= 0], np.int64))
    while len(frontier):
        numbers[frontier] = np.arange(count, count + len(frontier))
        count += len(frontier)
        if count * max(len(symbols), 1) > max_table:
            raise _too_large(count, len(symbols), max_table)
        next_states = _read_symbols(table, frontier, symbols)
        states.append(frontier)
        rows.append(next_states)
        reached = np.unique(next_states)
        frontier = reached[(reached < state_count) & (numbers[reached] < 0)]
    if not states:
        return np.empty(0, np.int64), np.empty((0, len(symbols)), np.int64)
    return np.concatenate(states), numbers[np.concatenate(rows)]


def _read_symbols(table: NDArray[np.int64], states: NDArray[np.int64], symbols: Sequence[bytes]) -> NDArray[np.int64]:
    """Return the states [S, symbols] after each symbol, from each of some states [S]."""
    next_states = np.repeat(states[:, None], len(symbols), axis=1)
    for position in range(max(map(len, symbols), default=0)):
        longer = [number for number, symbol in enumerate(symbols) if len(symbol) > position]
        byte_values = [symbols[number][position] for number in longer]
        next_states[:, longer] = table[next_states[:, longer], byte_values]
    return next_states


def _measure_distances(
    transitions: NDArray[np.int64], final: NDArray[np.bool_], characters: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the least number of characters from each state to a final one [S], -1 where there is no way.

    Dijkstra, "A note on two problems in connexion with graphs", 1959, from all final states backwards.
    """
    states, tokens = np.nonzero(transitions >= 0)
    # Of several symbols between two states the one of the fewest characters counts.
    lengths = characters[tokens]
    edges = np.unique(np.stack([transitions[states, tokens], states, lengths], axis=1), axis=0)
    first_edges = np.searchsorted(edges[:, 0], np.arange(len(final) + 1))
    distance = np.full(len(final), -1, np.int64)
    queue = [(0, int(state)) for state in np.flatnonzero(final)]
    while queue:
        length, state = heapq.heappop(queue)
        if distance[state] >= 0:
            continue
        distance[state] = length
        for _, source, characters_between in edges[first_edges[state] : first_edges[state + 1]].tolist():
            if distance[source] < 0:
                heapq.heappush(queue, (length + characters_between, source))
    return distance
