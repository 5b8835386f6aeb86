"""Rows of a compiled generator that share its calls, and may come and go between two of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.bundle import Bundle
from gentext.chain import Chain
from gentext.compiled import MAX_LOGITS, MAX_POSITIONS, GeneratorModel, check_results, draw_noise
from gentext.errors import FileFormatError
from gentext.interfaces import TopSymbols
from gentext.rows import RowRequest, RowState, Slot
from gentext.signature import TOP_COUNT, TOP_OUTPUTS
from gentext.stacking import KINDS, MATCH, STOP, Automaton, AutomatonStack, can_stack, shift_states
from gentext.stored import stored_chain

#: Inputs with an axis of rows that every call makes anew.
CALL_INPUTS = ("fresh", "noise", "forced")


@dataclasses.dataclass(frozen=True)
class DrawnRows:
    """What a call of K positions has drawn in N rows."""

    tokens: NDArray[np.int64]
    """[K, N]; -1 after the end of a row."""
    logprobs: NDArray[np.float32]
    """[K, N]."""
    ended: NDArray[np.int64]
    """[N]: an index into `gentext.signature.FINISH_BY_CODE`."""
    top_symbols: TopSymbols | None
    """[K, N, T] the most probable symbols, as many as a row wants; None where none does."""


class RowBatch:
    """Rows side by side, with the same tables but for their automata, which are stacked."""

    def __init__(self, model: GeneratorModel, bundle: Bundle, tables_key: str, *, reads: bool = False) -> None:
        """``reads``: the rows read their primes, in which no stop string counts; else they draw."""
        self.model, self.bundle = model, bundle
        self.tables_key, self.reads = tables_key, reads
        self.slots: list[Slot] = []
        self.arrays: dict[str, Any] = {}
        """The last tokens, states and parameters of all rows. States of automata are those of a row's own automaton."""
        inputs = model.signature.inputs
        self._axis_by_name = {
            port.name: port.row_axis for port in inputs if port.row_axis is not None and port.name not in CALL_INPUTS
        }
        self._state_names = ["token", *(port.name for port in model.signature.states)]
        self._chain: Chain = stored_chain(bundle)
        self._new_rows: list[Mapping[str, NDArray[Any]]] = []
        """The arrays of rows that were added since the last call."""
        self._is_prepared = False
        self._arrays_before: dict[str, Any] = {}
        """The arrays before the last call, which had ``_last_size`` positions."""
        self._last_size = 0
        self._kinds = [kind for kind in KINDS if kind.state in self._axis_by_name and not (reads and kind is STOP)]
        self._automata: dict[str, dict[str, Automaton]] = {kind.state: {} for kind in self._kinds}
        """The automata of the rows by their keys, for the state of each kind."""

    @property
    def max_positions(self) -> int:
        """Positions of one call at most, for the logits to fit into memory."""
        return max(1, MAX_LOGITS // (len(self.slots) * self.bundle.vocab_size))

    @property
    def most_symbols_left(self) -> int:
        """The largest number of symbols that a row still has to draw, at least 1."""
        limits = [slot.request.most_symbols for slot in self.slots]
        left = [
            MAX_POSITIONS if limit is None else limit - len(slot.text.tokens)
            for limit, slot in zip(limits, self.slots, strict=True)
        ]
        return max(1, *left)

    def fits(self, request: RowRequest) -> bool:
        """Return whether a row can share the calls: its tables are the same, and its automata can be stacked."""
        if request.tables_key != self.tables_key:
            return False
        return all(
            can_stack([*self._automata[kind.state].values(), request.automata[kind.state]])
            for kind in self._kinds
            if kind.state in request.automata
        )

    def add(self, slot: Slot, state: RowState) -> None:
        """Add a row behind the others; it takes part from the next call on."""
        self.slots.append(slot)
        self._new_rows.append(state.arrays | dict(slot.request.params))
        for kind in self._kinds:
            if automaton := slot.request.automata.get(kind.state):
                self._automata[kind.state][automaton.key] = automaton

    def remove(self, rows: Sequence[int]) -> None:
        """Remove the rows with these numbers."""
        self._join_rows()
        remaining = np.delete(np.arange(len(self.slots)), rows)
        self.arrays = {
            name: np.take(np.asarray(self.arrays[name]), remaining, axis) for name, axis in self._axis_by_name.items()
        }
        self.slots = [self.slots[row] for row in remaining]
        self._is_prepared = False

    def state(self, row: int) -> RowState:
        """Return a copy of a row's state."""
        self._join_rows()
        return self._copy_state(self.slots[row], row, self.arrays)

    def replay(self, row: int, count: int) -> RowState:
        """Return the state of a row after the first ``count`` symbols of the last call.

        From the state before it the symbols are drawn again, in a call of their own: the same ones, as a row depends
        on no other.
        """
        slot, size = self.slots[row], self._last_size
        if count == size:
            state = self.state(row)
        else:
            copy = Slot(slot.request, self.bundle)
            copy.drawn = slot.drawn - size
            state = self._copy_state(copy, row, self._arrays_before)
            if count:
                batch = RowBatch(self.model, self.bundle, self.tables_key)
                batch.add(copy, state)
                batch.draw(count)
                state = batch.state(0)
        # Whoever goes on with a text that has ended writes more of it.
        arrays = state.arrays | {"ended": np.zeros(1, np.int64)}
        ended_in = {"stop": STOP.state, "match": MATCH.state}.get(slot.text.finish)
        automata = {name: key for name, key in state.automata.items() if name != ended_in}
        return RowState(arrays, state.drawn, slot.decoder.state, automata)

    def _copy_state(self, slot: Slot, row: int, arrays: Mapping[str, Any]) -> RowState:
        own_arrays = {
            name: np.take(np.asarray(arrays[name]), [row], self._axis_by_name[name]) for name in self._state_names
        }
        keys = {name: automaton.key for name, automaton in slot.request.automata.items()}
        return RowState(own_arrays, slot.drawn, slot.decoder.state, keys)

    def _join_rows(self) -> None:
        """Join the arrays of new rows to those of the others."""
        if not self._new_rows:
            return
        parts = [self.arrays, *self._new_rows] if self.arrays else self._new_rows
        self.arrays = {
            name: np.concatenate([np.asarray(arrays[name]) for arrays in parts], axis)
            for name, axis in self._axis_by_name.items()
        }
        self._new_rows = []
        self._is_prepared = False

    def read(self, size: int) -> DrawnRows:
        """Read ``size`` tokens of each row's prime."""
        read = self._call(np.stack([slot.unread[:size] for slot in self.slots], axis=1).astype(np.int64))
        for slot in self.slots:
            slot.unread = slot.unread[size:]
        return read

    def draw(self, size: int) -> DrawnRows:
        """Draw ``size`` tokens in each row."""
        drawn = self._call(np.full((size, len(self.slots)), -1, np.int64))
        for slot in self.slots:
            slot.drawn += size
        return drawn

    def _prepare_calls(self) -> None:
        """Prepare what is the same in every call until a row comes or goes."""
        count, requests = len(self.slots), [slot.request for slot in self.slots]
        self._keys = np.array([(request.seed, request.stream) for request in requests], np.uint64)
        self._constant_feeds: dict[str, Any] = {"fresh": np.zeros(count, np.bool_), **requests[0].tables}
        self._offsets: dict[str, NDArray[np.int64]] = {}
        for kind in self._kinds:
            automata = [each.automata[kind.state] for each in requests if kind.state in each.automata]
            self._automata[kind.state] = {automaton.key: automaton for automaton in automata}
            stack = AutomatonStack([*self._automata[kind.state].values()])
            self._constant_feeds |= stack.feeds
            self._offsets[kind.state] = np.array(
                [
                    stack.offset_by_key[each.automata[kind.state].key] if kind.state in each.automata else 0
                    for each in requests
                ],
                np.int64,
            )
        params = {
            link.name: {name: self.arrays[f"{link.name}.{name}"] for name in link.strategy.params}
            for link in self._chain
        }
        active_names = self._chain.active(params, {}).names
        # The tables of a link without parameters may be those of the file, which are not known here.
        self._unused_noise = {
            link.name for link in self._chain if link.strategy.params and link.name not in active_names
        }
        self._is_prepared = True

    def _call(self, forced: NDArray[np.int64]) -> DrawnRows:
        """Run the graph for the tokens ``forced`` [K, N], -1 where one is drawn, and take over the states."""
        self._join_rows()
        if not self._is_prepared:
            self._prepare_calls()
        size, count = forced.shape
        signature = self.model.signature
        positions = np.array([slot.drawn for slot in self.slots], np.int64)
        noise = (
            np.zeros((size, count, signature.columns), np.float32)
            if self.reads
            else draw_noise(signature, self._keys, positions, size, self._unused_noise)
        )
        top_count = max(slot.request.top_count for slot in self.slots)
        feeds = self.arrays | self._constant_feeds | {"forced": forced, "noise": noise}
        if top_count:
            feeds[TOP_COUNT] = np.array(top_count, np.int64)
        stop_state = feeds[STOP.state]
        if self.reads:
            feeds[STOP.state] = np.zeros(count, np.int64)
        for kind in self._kinds:
            feeds[kind.state] = shift_states(kind, np.asarray(feeds[kind.state]), self._offsets[kind.state])
        results = self.model.call(feeds)
        check_results(results, size, count, top_count)
        tokens = np.asarray(results["tokens"])
        if tokens.min() < -1 or tokens.max() >= self.bundle.vocab_size:
            raise FileFormatError(
                f"the graph of the file returned tokens from {tokens.min()} to {tokens.max()}; expected -1, or 0 to "
                f"{self.bundle.vocab_size - 1}. The file is not as gen export writes it: export it again"
            )
        states = {port.name: results[f"{port.name}_out"] for port in signature.states}
        for kind in self._kinds:
            states[kind.state] = shift_states(kind, np.asarray(states[kind.state]), -self._offsets[kind.state])
        if self.reads:
            states[STOP.state] = stop_state
        self._arrays_before, self._last_size = self.arrays, size
        self.arrays = self.arrays | states | {"token": np.maximum(tokens[-1], 0)}
        top_symbols = TopSymbols(*(np.asarray(results[name]) for name in TOP_OUTPUTS)) if top_count else None
        return DrawnRows(tokens, np.asarray(results["logprobs"]), np.asarray(results["ended_out"]), top_symbols)
