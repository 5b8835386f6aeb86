"""Automata of several requests as one table, in which each row stands at a state of its own.

All rows of a call of a compiled generator share its tables. So the tables of the rows' automata are laid one behind the
other: a state s of an automaton is the state s + offset of the stack. The first states of every automaton of a kind
mean the same, so the stack has them once, and they keep their numbers.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.matching.match_tables import FIRST_STATE, MATCH_LINK
from gentext.stop import MAX_TABLE, StopAutomaton

Arrays = Mapping[str, NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class AutomatonKind:
    """The inputs of a generator that hold automata of one kind."""

    state: str
    """The state of each row [N]."""
    next_state: str
    """The table of the next states [S, V]."""
    by_state: tuple[str, ...]
    """The other tables with an element for each state [S, ...]."""
    common_states: int
    """How many first states mean the same in all automata."""


#: Stop strings. State 0 is that of a row without stop strings, and is never left.
STOP = AutomatonKind("stop_state", "stop_table", ("stop_final",), 1)
#: Expressions, as `gentext.matching.match_tables.link_tables` describes them.
MATCH = AutomatonKind(
    f"{MATCH_LINK}.state",
    f"{MATCH_LINK}.next_state",
    (f"{MATCH_LINK}.need", f"{MATCH_LINK}.least_need"),
    FIRST_STATE,
)
KINDS = (STOP, MATCH)


@dataclasses.dataclass(frozen=True)
class Automaton:
    """The tables of one automaton, by the names of the inputs."""

    kind: AutomatonKind
    tables: Arrays

    @functools.cached_property
    def key(self) -> str:
        """The same for automata with equal tables: SHA-256, hexadecimal."""
        return digest_arrays(self.tables)

    @property
    def states(self) -> int:
        """The number of states."""
        return len(self.tables[self.kind.next_state])


def stop_tables(stop: StopAutomaton, token_bytes: Sequence[bytes]) -> Automaton:
    """Return stop strings as they are stacked: state s of the automaton is the state s + 1."""
    next_state = stop.token_table(token_bytes) + STOP.common_states
    free_row = np.zeros((STOP.common_states, next_state.shape[1]), np.int64)
    is_final = np.concatenate([np.zeros(STOP.common_states, np.bool_), stop.matched > 0])
    tables = {STOP.next_state: np.concatenate([free_row, next_state]), STOP.by_state[0]: is_final}
    return Automaton(STOP, tables)


def match_tables(tables: Arrays) -> Automaton:
    """Return the tables of the link `match` as they are stacked."""
    return Automaton(MATCH, {f"{MATCH_LINK}.{name}": table for name, table in tables.items()})


def digest_arrays(arrays: Arrays) -> str:
    """Return a hash that arrays of equal names, shapes and elements share: SHA-256, hexadecimal."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items(), key=lambda named: named[0]):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class AutomatonStack:
    """The automata of rows that share calls, each once."""

    def __init__(self, kind: AutomatonKind) -> None:
        self.kind = kind
        self.feeds: dict[str, NDArray[Any]] = {}
        """The tables of the stack, by the names of the inputs; none where there is no automaton."""
        self._automata: dict[str, Automaton] = {}
        """By `Automaton.key`: those of the last call, and those that were added since."""
        self._states = 0
        """The states of all of them together."""
        self._offset_by_key: dict[str, int] = {}
        """Automaton -> what is added to its states, by `Automaton.key`."""

    def fits(self, automaton: Automaton) -> bool:
        """Return whether the tables are small enough with one more; one alone always is."""
        if not self._automata or automaton.key in self._automata:
            return True
        symbols: int = automaton.tables[self.kind.next_state].shape[1]
        return (self._states + automaton.states) * symbols <= MAX_TABLE

    def add(self, automaton: Automaton) -> None:
        """Add the automaton of a row that comes."""
        if automaton.key not in self._automata:
            self._automata[automaton.key] = automaton
            self._states += automaton.states

    def build(self, automata: Sequence[Automaton | None]) -> NDArray[np.int64]:
        """Stack the automata of all rows, and return what is added to the states of each row [N]."""
        automaton_by_key = {automaton.key: automaton for automaton in automata if automaton is not None}
        if automaton_by_key.keys() != self._offset_by_key.keys():
            self._join_tables(automaton_by_key)
        self._automata = automaton_by_key
        self._states = sum(automaton.states for automaton in automaton_by_key.values())
        offsets = [0 if automaton is None else self._offset_by_key[automaton.key] for automaton in automata]
        return np.array(offsets, np.int64)

    def _join_tables(self, automaton_by_key: Mapping[str, Automaton]) -> None:
        self._offset_by_key, self.feeds = {}, {}
        kind, offset = self.kind, 0
        for key, automaton in automaton_by_key.items():
            self._offset_by_key[key] = offset
            offset += automaton.states - kind.common_states
        parts = [*automaton_by_key.values()]
        if not parts:
            return
        self.feeds = dict(parts[0].tables)
        for name in (kind.next_state, *kind.by_state):
            own_rows = [automaton.tables[name][kind.common_states :] for automaton in parts]
            if name == kind.next_state:
                own_rows = [
                    shift_states(kind, rows, step)
                    for rows, step in zip(own_rows, self._offset_by_key.values(), strict=True)
                ]
            self.feeds[name] = np.concatenate([parts[0].tables[name][: kind.common_states], *own_rows])
        if kind is MATCH:
            self.feeds[f"{MATCH_LINK}.states"] = np.array([len(self.feeds[kind.next_state])], np.int64)


def shift_states(kind: AutomatonKind, states: NDArray[np.int64], offsets: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Return states of automata as states of their stack; with offsets below 0, the other way round."""
    return np.where(states >= kind.common_states, states + offsets, states)
