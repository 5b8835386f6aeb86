"""The states in which rows of a compiled generator begin: the first one, or one that a text goes on from."""

from __future__ import annotations

import dataclasses

import numpy as np

from gentext.errors import UsageError
from gentext.exported.metadata import Bundle
from gentext.exported.signature import flat_arrays, signature
from gentext.generation.rows import RowRequest, RowState
from gentext.generation.stacking import KINDS, STOP, AutomatonKind
from gentext.manager import host
from gentext.sampling.configured_chain import chain_of
from gentext.sampling.decoder import MAX_EMPTY_SYMBOLS, DecoderState

#: Symbols that a row may have drawn: the noise of later ones would have indices beyond 64 bits.
MAX_DRAWN = 2**48
#: Characters that may become stop strings, at most: more than a request's stop strings have together.
MAX_PENDING = 2**16
#: Bytes of a character of UTF-8 before its last one, at most.
MAX_UNFINISHED_BYTES = 3


class FirstStates:
    """Makes the states in which rows of a file begin."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises UnknownComponent when a link with states is missing: the installed code of the link returns them."""
        self._bundle = bundle
        self._chain = chain_of(bundle, host().registry, [link.name for link in bundle.chain if link.state])
        self._model_arrays = {state.name: state.initial_rows(1) for state in bundle.states}
        self._ports = [port for port in signature(bundle).inputs if port.name == "token"] + [*signature(bundle).states]

    def make(self, request: RowRequest) -> RowState:
        """Return the state of a row that has read nothing."""
        arrays = dict(self._model_arrays)
        params = {
            link.name: {name: request.params[f"{link.name}.{name}"] for name in link.strategy.params}
            for link in self._chain
        }
        arrays |= flat_arrays(self._chain.initial_state(1, params))
        stop_state = 0 if request.stop is None else request.stop.START_STATE + STOP.common_states
        arrays |= {STOP.state: np.array([stop_state]), "ended": np.array([0]), "token": np.array([self._bundle.start])}
        keys = {name: automaton.key for name, automaton in request.automata.items()}
        return RowState(arrays, 0, DecoderState(), keys)

    def enter(self, state: RowState, request: RowRequest) -> RowState:
        """Return a state that stands in the automata of a new request: at their start, where they are others.

        Raises UsageError for a state that no row of this file can have.
        """
        self._check(state, request)
        first = self.make(request)
        arrays, decoder = dict(state.arrays), state.decoder
        for kind in KINDS:
            if _goes_on(state, request, kind):
                continue
            link = kind.state.rpartition(".")[0]
            own_names = [name for name in arrays if name == kind.state or (link and name.startswith(f"{link}."))]
            arrays |= {name: first.arrays[name] for name in own_names}
            if kind is STOP:
                # What was pending may also become another stop string, or be one.
                excess = decoder.pending + decoder.excess
                decoder = dataclasses.replace(decoder, pending="", excess=excess, stop_state=0)
                if request.stop is not None:
                    stop_state = request.stop.state_after_prime(excess.encode() + decoder.unfinished)
                    arrays[kind.state] = np.array([stop_state + kind.common_states])
        return RowState(arrays, state.drawn, decoder, first.automata, state.unread)

    def _check(self, state: RowState, request: RowRequest) -> None:
        shapes = {port.name: tuple(1 if size == "N" else size for size in port.shape) for port in self._ports}
        if state.arrays.keys() != shapes.keys():
            raise _state_error(f"the arrays {', '.join(sorted(state.arrays))}", ", ".join(sorted(shapes)))
        for port in self._ports:
            array, expected = state.arrays[port.name], f"{port.dtype} {shapes[port.name]}"
            if array.dtype != np.dtype(port.dtype) or array.shape != shapes[port.name]:
                raise _state_error(f"{port.name} as {array.dtype} {array.shape}", expected)
            if array.dtype.kind == "f" and np.isnan(array).any():
                raise _state_error(f"NaN in {port.name}", "numbers")
        _check_range("token", int(state.arrays["token"][0]), self._bundle.vocab_size)
        _check_range("ended", int(state.arrays["ended"][0]), 1)
        _check_range("drawn", state.drawn, MAX_DRAWN)
        for token in state.unread:
            _check_range("unread", token, self._bundle.vocab_size)
        for kind in KINDS:
            if _goes_on(state, request, kind):
                states = request.automata[kind.state].states
                _check_range(kind.state, int(state.arrays[kind.state][0]), states, begin=int(kind is STOP))
        self._check_decoder(state, request)

    def _check_decoder(self, state: RowState, request: RowRequest) -> None:
        decoder, most_pending = state.decoder, MAX_PENDING
        if request.stop is not None and _goes_on(state, request, STOP):
            _check_range("decoder.stop_state", decoder.stop_state, len(request.stop.pending))
            most_pending = int(request.stop.pending[decoder.stop_state])
        _check_range("the length of decoder.pending", len(decoder.pending), most_pending + 1)
        _check_range("the length of decoder.unfinished", len(decoder.unfinished), MAX_UNFINISHED_BYTES + 1)
        _check_range("decoder.empty_count", decoder.empty_count, MAX_EMPTY_SYMBOLS + 1)
        _check_range("the length of decoder.excess", len(decoder.excess), MAX_PENDING + 1)


def _goes_on(state: RowState, request: RowRequest, kind: AutomatonKind) -> bool:
    """Return whether a row stays in its automaton of a kind."""
    automaton = request.automata.get(kind.state)
    return automaton is not None and state.automata.get(kind.state) == automaton.key


def _check_range(name: str, number: int, end: int, begin: int = 0) -> None:
    if not begin <= number < end:
        raise _state_error(f"{name} {number}", f"{begin} to {end - 1}")


def _state_error(actual: str, expected: str) -> UsageError:
    return UsageError(f"the state to go on from has {actual}; expected {expected}: it is not from this file")
