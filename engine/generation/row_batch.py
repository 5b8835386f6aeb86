"""Rows that share the calls of a compiled generator, and may come and go between two of them."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.errors import FileFormatError
from gentext.exported.bundle import Bundle
from gentext.exported.signature import TOP_COUNT, TOP_OUTPUTS
from gentext.generation.compiled import MAX_LOGITS, MAX_POSITIONS, GeneratorModel, check_results, draw_noise
from gentext.generation.row_request import RowRequest
from gentext.generation.row_state import RowState
from gentext.generation.rows import Slot
from gentext.generation.stacking import KINDS, MATCH, STOP, AutomatonStack, shift_states
from gentext.interfaces import Finish, TopSymbols
from gentext.sampling.stored import stored_chain

#: Inputs with an axis of rows that every call makes anew.
CALL_INPUTS = ("fresh", "noise", "forced")
#: Positions whose noise is drawn at once where no row comes or goes: small arrays cost as much as larger ones.
NOISE_AHEAD = 128
#: How a text has ended -> the automaton that has ended it.
#: A record ends only where the text matches.
ENDED_IN: dict[Finish, str] = {"stop": STOP.state, "match": MATCH.state, "end": MATCH.state}


@dataclasses.dataclass(frozen=True)
class DrawnRows:
    """What a call of K positions has drawn in N rows."""

    tokens: NDArray[np.int64]
    """[K, N]; -1 after the end of a row."""
    logprobs: NDArray[np.float32]
    """[K, N]."""
    ended: NDArray[np.int64]
    """[N]: an index into `gentext.exported.signature.FINISH_BY_CODE`."""
    top_symbols: TopSymbols | None
    """[K, N, T] the most probable symbols, as many as a row wants; None where none does."""

    # Lists of all rows are made faster than those of one row after the other.
    @functools.cached_property
    def token_rows(self) -> list[list[int]]:
        """The tokens of each row."""
        return self.tokens.T.tolist()  # type: ignore[no-any-return]

    @functools.cached_property
    def logprob_rows(self) -> list[list[float]]:
        """The log-probabilities of each row."""
        return self.logprobs.T.tolist()  # type: ignore[no-any-return]


class RowBatch:
    """Rows side by side, with the same tables but for their automata, which are stacked."""

    def __init__(self, model: GeneratorModel, bundle: Bundle, tables_key: str, *, reads: bool = False) -> None:
        """``reads``: the rows read their primes, in which no stop string counts; else they draw."""
        self.model, self.bundle = model, bundle
        self.tables_key, self.reads = tables_key, reads
        self.slots: list[Slot] = []
        self.active_links: frozenset[str] = frozenset()
        """The links that its calls run."""
        self.arrays: dict[str, Any] = {}
        """The last tokens, states and parameters of all rows. States of automata are those of a row's own automaton."""
        inputs = model.signature.inputs
        self._axis_by_name = {
            port.name: axis for port in inputs if (axis := port.row_axis) is not None and port.name not in CALL_INPUTS
        }
        self._state_names = ["token", *(port.name for port in model.signature.states)]
        self._chain = stored_chain(bundle)
        self._row_numbers = np.arange(0)
        """Of the rows that had a place in ``arrays`` and have not been removed: their places."""
        self._new_rows: list[Mapping[str, NDArray[Any]]] = []
        """The arrays of the rows behind them, which were added since the last call."""
        self._is_prepared = False
        self._arrays_before: dict[str, Any] = {}
        """The arrays before the last call, which had ``_last_size`` positions."""
        self._last_size = 0
        kinds = [kind for kind in KINDS if kind.state in self._axis_by_name and not (reads and kind is STOP)]
        self._stacks = [AutomatonStack(kind) for kind in kinds]

    @property
    def max_positions(self) -> int:
        """Positions of one call at most, for the logits to fit into memory."""
        return max(1, MAX_LOGITS // (len(self.slots) * self.bundle.vocab_size))

    @property
    def most_symbols_left(self) -> int:
        """The largest number of symbols that a row still has to draw, at least 1."""
        limits = [slot.request.most_symbols for slot in self.slots]
        left = [
            MAX_POSITIONS if limit is None else limit - slot.text.token_count
            for limit, slot in zip(limits, self.slots, strict=True)
        ]
        return max(1, *left)

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
        self._new_rows.append(state.arrays | dict(slot.request.params))
        for stack in self._stacks:
            if automaton := slot.request.automata.get(stack.kind.state):
                stack.add(automaton)

    def remove(self, rows: Sequence[int]) -> None:
        """Remove the rows with these numbers."""
        removed, old_count = set(rows), len(self._row_numbers)
        self._row_numbers = np.delete(self._row_numbers, [row for row in removed if row < old_count])
        self._new_rows = [new for row, new in enumerate(self._new_rows, old_count) if row not in removed]
        self.slots = [slot for row, slot in enumerate(self.slots) if row not in removed]
        self._is_prepared = False

    def states(self, rows: Sequence[int]) -> list[RowState]:
        """Return copies of the states of some rows."""
        self._update_rows()
        return self._copy_states(rows, self.arrays)

    def replay(self, counts: Mapping[int, int]) -> list[RowState]:
        """Return the states of rows after the first symbols of the last call: of row r after ``counts[r]`` of them.

        From the states before it the symbols are drawn again: the same ones, as a row depends on no other. Rows do so
        together, in calls that end where one of them does. Rows must not have come or gone since the call.
        """
        rows = sorted(counts, key=lambda row: counts[row])
        batch = RowBatch(self.model, self.bundle, self.tables_key)
        for row, state in zip(rows, self._copy_states(rows, self._arrays_before), strict=True):
            slot = copy.copy(self.slots[row])
            slot.drawn -= self._last_size
            batch.add(slot, state)
        states: dict[int, RowState] = {}
        position = 0
        for count, group in itertools.groupby(rows, lambda row: counts[row]):
            ended_rows = list(group)
            if count == self._last_size:
                states |= zip(ended_rows, self._copy_states(ended_rows, self.arrays), strict=True)
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

    def _copy_states(self, rows: Sequence[int], arrays: Mapping[str, Any]) -> list[RowState]:
        blocks = {name: np.take(np.asarray(arrays[name]), rows, self._axis_by_name[name]) for name in self._state_names}
        all_before = {name: (slice(None),) * self._axis_by_name[name] for name in self._state_names}
        slots = [self.slots[row] for row in rows]
        return [
            RowState(
                {name: block[(*all_before[name], slice(number, number + 1))] for name, block in blocks.items()},
                slot.drawn,
                slot.decoder.state,
                {name: automaton.key for name, automaton in slot.request.automata.items()},
                tuple(slot.unread.tolist()),
            )
            for number, slot in enumerate(slots)
        ]

    def _update_rows(self) -> None:
        """Give each row its place in the arrays, after rows have come or gone."""
        old_count, count = len(self._row_numbers), len(self.slots)
        if self.arrays and not self._new_rows and count == len(self.arrays["token"]):
            return
        arrays = {}
        for name, axis in self._axis_by_name.items():
            parts = [new[name] for new in self._new_rows]
            if old_count:
                parts.insert(0, np.take(np.asarray(self.arrays[name]), self._row_numbers, axis))
            arrays[name] = np.concatenate(parts, axis)
        self.arrays, self._new_rows, self._row_numbers = arrays, [], np.arange(count)
        self._is_prepared = False

    def read(self, size: int) -> DrawnRows:
        """Read ``size`` tokens of each row's prime."""
        read = self._call(np.stack([slot.unread[:size] for slot in self.slots], axis=1).astype(np.int64))
        stop_states = np.array(self.arrays[STOP.state])
        for row, slot in enumerate(self.slots):
            if (stop := slot.request.stop) is not None:
                prime = self.bundle.join_symbols(slot.unread[:size])
                slot.decoder.read_prime(prime)
                stop_state = stop.state_after_prime(prime, int(stop_states[row]) - STOP.common_states)
                stop_states[row] = stop_state + STOP.common_states
            slot.unread = slot.unread[size:]
        self.arrays = self.arrays | {STOP.state: stop_states}
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
        self._top_count = max(request.top_count for request in requests)
        self._constant_feeds: dict[str, Any] = {"fresh": np.zeros(count, np.bool_), **requests[0].tables}
        if self._top_count:
            self._constant_feeds[TOP_COUNT] = np.array(self._top_count, np.int64)
        self._offsets: dict[str, NDArray[np.int64]] = {}
        for stack in self._stacks:
            name = stack.kind.state
            self._offsets[name] = stack.build([request.automata.get(name) for request in requests])
            self._constant_feeds |= stack.feeds
        params = {
            link.name: {name: self.arrays[f"{link.name}.{name}"] for name in link.strategy.params}
            for link in self._chain
        }
        active_names = self._chain.active(params, {}).names
        # The tables of a link without parameters may be those of the file, which are not known here.
        self._unused_noise = {
            link.name for link in self._chain if link.strategy.params and link.name not in active_names
        }
        self._noise = np.empty((0, count, self.model.signature.columns), np.float32)
        """The noise of the next positions."""
        self._is_steady = False
        """Whether no row has come or gone since the call before."""
        self._is_prepared = True

    def _call(self, forced: NDArray[np.int64]) -> DrawnRows:
        """Run the graph for the tokens ``forced`` [K, N], -1 where one is drawn, and take over the states."""
        self._update_rows()
        if not self._is_prepared:
            self._prepare_calls()
        size, count = forced.shape
        signature = self.model.signature
        feeds = self.arrays | self._constant_feeds | {"forced": forced, "noise": self._make_noise(size)}
        stop_state = feeds[STOP.state]
        if self.reads:
            feeds[STOP.state] = np.zeros(count, np.int64)
        self._shift_states(feeds, 1)
        results = self.model.call(feeds)
        check_results(results, size, count, self._top_count)
        tokens = np.asarray(results["tokens"])
        if tokens.min() < -1 or tokens.max() >= self.bundle.vocab_size:
            raise FileFormatError(
                f"the graph of the file returned tokens from {tokens.min()} to {tokens.max()}; expected -1, or 0 to "
                f"{self.bundle.vocab_size - 1}. The file is not as gen export writes it: export it again"
            )
        states = {port.name: results[f"{port.name}_out"] for port in signature.states}
        self._shift_states(states, -1)
        if self.reads:
            states[STOP.state] = stop_state
        self._arrays_before, self._last_size = self.arrays, size
        self.arrays = self.arrays | states | {"token": np.maximum(tokens[-1], 0)}
        top_symbols = TopSymbols(*(np.asarray(results[name]) for name in TOP_OUTPUTS)) if self._top_count else None
        return DrawnRows(tokens, np.asarray(results["logprobs"]), np.asarray(results["ended_out"]), top_symbols)

    def _make_noise(self, size: int) -> NDArray[np.float32]:
        signature = self.model.signature
        if self.reads:
            return np.zeros((size, len(self.slots), signature.columns), np.float32)
        if len(self._noise) < size:
            positions = np.array([slot.drawn for slot in self.slots], np.int64)
            ahead = max(size, NOISE_AHEAD) if self._is_steady else size
            self._noise = draw_noise(signature, self._keys, positions, ahead, self._unused_noise)
        noise, self._noise = self._noise[:size], self._noise[size:]
        self._is_steady = True
        return noise

    def _shift_states(self, states: dict[str, Any], sign: int) -> None:
        """Replace the states of each row's own automata by those of the stacks; with ``sign`` -1, the other way."""
        for stack in self._stacks:
            name = stack.kind.state
            states[name] = shift_states(stack.kind, np.asarray(states[name]), sign * self._offsets[name])
