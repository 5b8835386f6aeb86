"""The tables that the link `match` reads, for the automata of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

#: The name of the link.
MATCH_LINK = "match"
#: The state of a row that follows no expression, or has ended.
FREE_STATE = 0
#: The state of a row after which nothing can follow: its next draw ends it, whatever it is.
DONE_STATE = 1
#: The states of an automaton come behind these two.
FIRST_STATE = 2
#: The characters that are left where nothing limits them.
NO_LIMIT = 2**40


class SymbolAutomaton(Protocol):
    """What the tables need of a `gentext.matching.match.MatchAutomaton`, which documents these arrays."""

    @property
    def transitions(self) -> NDArray[np.int64]: ...

    @property
    def final(self) -> NDArray[np.bool_]: ...

    @property
    def needs(self) -> NDArray[np.float64]: ...

    @property
    def onward(self) -> NDArray[np.float64]: ...

    @property
    def characters(self) -> NDArray[np.int64]: ...

    @property
    def boundary(self) -> int | None: ...

    @property
    def link_tables(self) -> Mapping[str, NDArray[Any]]: ...


def link_tables(automaton: SymbolAutomaton) -> dict[str, NDArray[Any]]:
    """Return the tables of the link `match` for an automaton, by name.

    ``next_state`` (int64 [T, V]) has the state after each symbol. ``need`` (float32 [T, V]) is how many characters must
    be left so that a symbol is possible: its own and those up to an end. Where a text may end, a symbol that is
    forbidden needs none and leads to ``FREE_STATE``. ``least_need`` (float32 [T]) is the least of the allowed symbols'
    needs where a text may end, and elsewhere 0. ``characters`` (int64 [V]) begin in each symbol, and ``states`` (int64
    [1]) is T, a power of two: on a GPU tables of one size share their buffers.

    With a boundary symbol, that alone needs none where a text may end, and ends the row as everywhere: the link ends
    none, and ``least_need`` is 0.
    """
    states, symbol_count = automaton.transitions.shape
    table_size = 1 << (FIRST_STATE + states - 1).bit_length()
    is_allowed, is_final = automaton.transitions >= 0, automaton.final[:, None]
    own_state = np.arange(states)[:, None] + FIRST_STATE
    next_state = np.zeros((table_size, symbol_count), np.int64)
    need = np.zeros((table_size, symbol_count), np.float32)
    least_need = np.zeros(table_size, np.float32)
    own_rows = slice(FIRST_STATE, FIRST_STATE + states)
    if automaton.boundary is None:
        forbidden_state = np.where(is_final, FREE_STATE, own_state)
        need[own_rows] = np.where(is_allowed | ~is_final, automaton.needs, 0)
        least_need[own_rows] = _least_needs(automaton)
    else:
        forbidden_state = own_state
        need[own_rows] = automaton.needs
        need[own_rows, automaton.boundary] = np.where(automaton.final, 0, np.inf)
    next_state[own_rows] = np.where(is_allowed, automaton.transitions + FIRST_STATE, forbidden_state)
    return {
        "next_state": next_state,
        "need": need,
        "least_need": least_need,
        "characters": automaton.characters,
        "states": np.array([table_size], np.int64),
    }


def first_states(
    automaton: SymbolAutomaton, states: NDArray[np.int64], budgets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the states of the link for states of an automaton [N], with so many characters left in each row [N]."""
    is_done = automaton.link_tables["least_need"][states + FIRST_STATE] > budgets
    return np.where(is_done, DONE_STATE, states + FIRST_STATE)


def _least_needs(automaton: SymbolAutomaton) -> NDArray[np.float64]:
    """Return the least need of the symbols that are allowed where a text may end, and 0 elsewhere [S]."""
    return np.where(automaton.final, automaton.onward, 0)
