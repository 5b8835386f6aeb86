"""Rows that share the calls of a compiled generator, and may come and go between two of them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.exported.metadata import Bundle
from gentext.generation.model_calls import DrawnRows, Feeds, GeneratorModel, forced_tokens
from gentext.generation.row_table import RowTable
from gentext.generation.rows import RowRequest, RowState, Slot
from gentext.generation.stacking import KINDS, MATCH, STOP, AutomatonStack, shift_states
from gentext.interfaces import Finish

#: How a text has ended -> the automaton that has ended it.
#: A record ends only where the text matches.
ENDED_IN: dict[Finish, str] = {"stop": STOP.state, "match": MATCH.state, "end": MATCH.state}


class RowBatch:
    """Rows side by side, with the same tables but for their automata, which are stacked."""

    def __init__(self, model: GeneratorModel, bundle: Bundle, tables_key: str, *, reads: bool = False) -> None:
        """``reads``: the rows read their primes, in which no stop string counts; else they draw."""
        self.model, self.bundle = model, bundle
        self.tables_key, self.reads = tables_key, reads
        self.slots: list[Slot] = []
        self.active_links: frozenset[str] = frozenset()
        """The links that its calls run."""
        self.table = RowTable(model, bundle)
        """States of automata are those of a row's own automaton."""
        self._state_names = ["token", *(port.name for port in model.signature.states)]
        self._is_prepared = False
        self._offsets: dict[str, NDArray[np.int64]] = {}
        """What is added to each row's state of an automaton for its state in the stack, by the name of the state."""
        self._arrays_before: Feeds = {}
        """The states before the last call, which had ``_last_size`` positions."""
        self._last_size = 0
        kinds = [kind for kind in KINDS if kind.state in self._state_names and not (reads and kind is STOP)]
        self._stacks = [AutomatonStack(kind) for kind in kinds]

    @property
    def most_symbols_left(self) -> int:
        """The largest number of symbols that a row still has to draw, at least 1."""
        return max(1, *(slot.most_symbols_left for slot in self.slots))

    def fits(self, request: RowRequest) -> bool:
        """Return whether a row can share the calls: its tables are the same, and its automata can be stacked."""
        automata = request.automata
        return request.tables_key == self.tables_key and all(
            stack.fits(automata[stack.kind.state]) for stack in self._stacks if stack.kind.state in automata
        )

    def add(self, slot: Slot, state: RowState) -> None:
        """Add a row behind the others; it takes part from the next call on."""
        self.active_links |= slot.request.active_links
        self.slots.append(slot)
        key = (slot.request.seed, slot.request.stream)
        self.table.add({**state.arrays, **slot.request.params}, [key], [state.drawn - len(slot.unread)])
        self._is_prepared = False
        for stack in self._stacks:
            if automaton := slot.request.automata.get(stack.kind.state):
                stack.add(automaton)

    def remove(self, rows: Sequence[int]) -> None:
        """Remove the rows with these numbers."""
        removed = set(rows)
        self.slots = [slot for row, slot in enumerate(self.slots) if row not in removed]
        self.table.remove(rows)
        self._is_prepared = False

    def states(self, rows: Sequence[int], *, before_call: bool = False) -> list[RowState]:
        """Return copies of the states of some rows, as they are or as they were before the last call.

        Rows must not have come or gone since that call.
        """
        arrays, positions_ago = (self._arrays_before, self._last_size) if before_call else (self.table.arrays, 0)
        blocks = self.table.take(rows, {name: arrays[name] for name in self._state_names})
        all_before = {name: (slice(None),) * self.table.axis_by_name[name] for name in self._state_names}
        slots, positions = [self.slots[row] for row in rows], self.table.positions[rows] - positions_ago
        return [
            RowState(
                {name: block[(*all_before[name], slice(number, number + 1))] for name, block in blocks.items()},
                position + len(slot.unread),
                slot.decoder.state,
                {name: automaton.key for name, automaton in slot.request.automata.items()},
                tuple(slot.unread.tolist()),
            )
            for number, (slot, position) in enumerate(zip(slots, positions.tolist(), strict=True))
        ]

    def replay(self, counts: Mapping[int, int]) -> list[RowState]:
        """Return the states of rows after the first symbols of the last call: of row r after ``counts[r]`` of them.

        From the states before it the symbols are drawn again: the same ones, as a row depends on no other. Rows do so
        together, in calls that end where one of them does.
        """
        rows = sorted(counts, key=lambda row: counts[row])
        batch = RowBatch(self.model, self.bundle, self.tables_key)
        for row, state in zip(rows, self.states(rows, before_call=True), strict=True):
            batch.add(self.slots[row], state)
        states: dict[int, RowState] = {}
        position = 0
        for count, group in itertools.groupby(rows, lambda row: counts[row]):
            ended_rows = list(group)
            if count == self._last_size:
                states |= zip(ended_rows, self.states(ended_rows), strict=True)
                break
            if count > position:
                batch.draw(count - position)
                position = count
            numbers = range(len(ended_rows))
            states |= zip(ended_rows, batch.states(numbers), strict=True)
            batch.remove(numbers)
        # Whoever goes on with a text that has ended writes more of it.
        running = {"ended": np.zeros(1, np.int64)}
        return [
            dataclasses.replace(
                states[row],
                arrays=states[row].arrays | running,
                automata={
                    name: key
                    for name, key in states[row].automata.items()
                    if name != ENDED_IN.get(self.slots[row].text.finish)
                },
            )
            for row in counts
        ]

    def read(self, size: int) -> DrawnRows:
        """Read ``size`` tokens of each row's prime."""
        unread = ((row, slot.unread) for row, slot in enumerate(self.slots))
        read = self._call(forced_tokens(size, len(self.slots), unread))
        stop_states = np.array(self.table.arrays[STOP.state])
        for row, slot in enumerate(self.slots):
            if (stop := slot.request.stop) is not None:
                prime = self.bundle.join_symbols(slot.unread[:size])
                slot.decoder.read_prime(prime)
                stop_state = stop.state_after_prime(prime, int(stop_states[row]) - STOP.common_states)
                stop_states[row] = stop_state + STOP.common_states
            slot.unread = slot.unread[size:]
        self.table.replace({STOP.state: stop_states})
        return read

    def draw(self, size: int) -> DrawnRows:
        """Draw ``size`` tokens in each row."""
        return self._call(forced_tokens(size, len(self.slots)))

    def _prepare_calls(self) -> None:
        """Prepare what is the same in every call until a row comes or goes."""
        requests = [slot.request for slot in self.slots]
        self.table.top_count = max(request.top_count for request in requests)
        self.table.set_active_links(frozenset().union(*{request.active_links for request in requests}))
        self.table.shared_feeds = dict(requests[0].tables)
        for stack in self._stacks:
            name = stack.kind.state
            self._offsets[name] = stack.build([request.automata.get(name) for request in requests])
            self.table.shared_feeds |= stack.feeds
        self._is_prepared = True

    def _call(self, forced: NDArray[np.int64]) -> DrawnRows:
        """Run the graph for the tokens ``forced`` [K, N], -1 where one is drawn, and take over the states."""
        if not self._is_prepared:
            self._prepare_calls()
        before = self.table.arrays
        feeds = self._shift_states(before, 1)
        if self.reads:
            feeds[STOP.state] = np.zeros(len(self.slots), np.int64)
        drawn = self.table.call(forced, feeds=feeds)
        own_states = self._shift_states(self.table.arrays, -1)
        if self.reads:
            own_states[STOP.state] = before[STOP.state]
        self.table.replace(own_states)
        self._arrays_before, self._last_size = before, len(forced)
        return drawn

    def _shift_states(self, arrays: Mapping[str, Any], sign: int) -> dict[str, Any]:
        """Return the states of each row's own automata as those of the stacks; with ``sign`` -1, the other way."""
        kinds = {stack.kind.state: stack.kind for stack in self._stacks}
        return {
            name: shift_states(kind, np.asarray(arrays[name]), sign * self._offsets[name])
            for name, kind in kinds.items()
        }
