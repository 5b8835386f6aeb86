"""A row of a compiled generator by itself: what it must write, and its state between two calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gentext.bundle import Bundle
from gentext.chain import Chain
from gentext.decoder import DecoderState, GeneratedText, RowDecoder
from gentext.errors import UsageError
from gentext.generate import has_one_character_symbols
from gentext.interfaces import Finish, Ids
from gentext.match_tables import FREE_STATE, MATCH_LINK
from gentext.stacking import KINDS, STOP, Arrays, Automaton, digest_arrays, match_tables, stop_tables
from gentext.stop import StopAutomaton
from gentext.stored import is_compiled

if TYPE_CHECKING:
    from gentext.writing import Writing


@dataclasses.dataclass(frozen=True)
class RowRequest:
    """One text for a row of a compiled generator to write. Arrays have the names of the generator's inputs."""

    prime: Ids
    """Token ids [P] to read first."""
    seed: int
    stream: int
    length: int | None
    """New characters; None: without end."""
    params: Arrays
    """Parameters of the links, each [1, 1] or [1, V]."""
    tables: Arrays
    """Tables of the links but `match`. Rows of one call must have the same."""
    tables_key: str
    """The same for rows that have the same tables."""
    automata: Mapping[str, Automaton]
    """Stop strings and expressions, by the name of the state that a row has in them."""
    stop: StopAutomaton | None = None
    most_symbols: int | None = None
    """Symbols that are drawn at most, where that is known; the text may end earlier."""
    full_finish: Finish = "length"
    """How the text ends when it has ``length`` characters."""
    top_count: int = 0
    """How many of the most probable symbols the text has for each of its tokens."""
    echo: bool = False
    """Whether the text has the log-probabilities of its prime; ``length`` may then be 0."""
    keeps_state: bool = False
    """Whether the state after the last symbol is needed, which takes one more call where a text ends within one."""


@dataclasses.dataclass(frozen=True)
class RowState:
    """A row between two calls: all that its next symbols depend on, besides its request.

    It is bound to the file, and may be copied, stored and gone on with in any slot, by any process.
    """

    arrays: dict[str, NDArray[Any]]
    """The last token and the states of model, links and automata, as the generator's inputs name them; one row each."""
    drawn: int
    """Symbols that were drawn: the position of the noise of the next one."""
    decoder: DecoderState
    """What is left between the symbols and the text."""
    automata: Mapping[str, str]
    """The key of the automaton in which a state counts, by the name of the state; see `Automaton.key`.

    An automaton that has ended the text is not among them: whoever goes on begins it anew.
    """


class Slot:
    """A row that is being written."""

    def __init__(self, request: RowRequest, bundle: Bundle) -> None:
        self.request = request
        self.text = GeneratedText(request.stream)
        """The text so far, without its prime, and what its request wants to know of the tokens."""
        self.decoder = RowDecoder(
            self.text, bundle, request.length, request.stop, request.prime, request.full_finish, request.echo
        )
        self.unread = request.prime
        """The tokens of the prime that are still to be read."""
        self.drawn = 0
        """Symbols that were drawn, before this request too where it goes on with a state."""
        self.is_free = False
        """Whether its text has ended, or nobody wants the rest of it."""
        self.last_state: RowState | None = None
        """The state after the last symbol of a text that has ended, for a request that keeps it."""

    @property
    def waits(self) -> bool:
        """Whether it has no symbol yet."""
        return not self.text.tokens and self.text.finish == "running"


def row_requests(writing: Writing, *, keeps_state: bool = False) -> Iterator[RowRequest]:
    """Yield a request for each text of a checked request, in order.

    Raises UsageError where the chain is not the one that is compiled into the file.
    """
    options, chain, bundle = writing.options, writing.chosen_chain.chain, writing.sampler.bundle
    if not is_compiled(bundle, chain):
        raise UsageError(
            f"the chain {', '.join(chain.names)} is not compiled into the file, whose chain is "
            f"{', '.join(link.name for link in bundle.chain) or 'empty'}; compile it: gen export RUN --chain "
            f"{','.join(chain.names)}"
        )
    params = {
        f"{link}.{name}": array
        for link, arrays in chain.param_arrays(1, writing.chosen_chain.param_values).items()
        for name, array in arrays.items()
    }
    tables = {
        f"{link}.{name}": array
        for link, arrays in writing.tables.items()
        for name, array in arrays.items()
        if link != MATCH_LINK
    }
    tables_key = digest_arrays(tables)
    most_symbols = options.length if has_one_character_symbols(bundle) else None
    stop = StopAutomaton(options.stop) if options.stop else None
    stop_automata = {} if stop is None else {STOP.state: stop_tables(stop, bundle.token_bytes)}
    matches = writing.matches
    expressions = None if matches is None else match_tables(matches.tables)
    for number in range(len(writing.primes) * options.count_per_prime):
        request = RowRequest(
            prime=writing.encoded_primes[number // options.count_per_prime],
            seed=writing.seed,
            stream=options.first_stream + number,
            length=options.length,
            most_symbols=most_symbols,
            params=params,
            tables=tables,
            tables_key=tables_key,
            automata=stop_automata,
            stop=stop,
            top_count=min(options.top_logprobs, bundle.vocab_size),
            echo=options.echo,
            keeps_state=keeps_state,
        )
        if matches is not None and expressions is not None and matches.first_states[number] != FREE_STATE:
            first = {"first_state": matches.first_states[number], "budget": matches.budgets[number]}
            request = dataclasses.replace(
                request,
                params=params | {f"{MATCH_LINK}.{name}": np.array([[integer]]) for name, integer in first.items()},
                automata=stop_automata | {expressions.kind.state: expressions},
                full_finish="match",
            )
        yield request


def first_row_state(request: RowRequest, bundle: Bundle, chain: Chain) -> RowState:
    """Return the state of a row that has read nothing; ``chain`` has the file's links that have states."""
    arrays = {state.name: state.initial_rows(1) for state in bundle.states}
    params = {
        link.name: {name: request.params[f"{link.name}.{name}"] for name in link.strategy.params} for link in chain
    }
    for link, states in chain.initial_state(1, params).items():
        arrays |= {f"{link}.{name}": array for name, array in states.items()}
    stop_state = 0 if request.stop is None else request.stop.START_STATE + STOP.common_states
    arrays |= {STOP.state: np.array([stop_state]), "ended": np.array([0]), "token": np.array([bundle.start])}
    return RowState(arrays, 0, DecoderState(), {name: automaton.key for name, automaton in request.automata.items()})


def begin_slot(request: RowRequest, state: RowState | None, bundle: Bundle, chain: Chain) -> tuple[Slot, RowState]:
    """Return a slot and the state of its row before it reads its prime, from a state to go on with, or None."""
    first = first_row_state(request, bundle, chain)
    slot = Slot(request, bundle)
    if state is None:
        state = first
    else:
        state = _enter_automata(state, first)
        slot.decoder.restore(state.decoder)
        slot.drawn = state.drawn
        if len(request.prime):
            slot.decoder.append_prime(_read_bytes(request.prime, bundle))
    if request.stop is not None:
        stop_state = int(state.arrays[STOP.state][0]) - STOP.common_states
        stop_state = request.stop.state_after_prime(_read_bytes(request.prime, bundle), stop_state)
        arrays = state.arrays | {STOP.state: np.array([stop_state + STOP.common_states])}
        state = dataclasses.replace(state, arrays=arrays)
    return slot, state


def _enter_automata(state: RowState, first: RowState) -> RowState:
    """Return a state that stands in the automata of a new request: at their start, where they are others."""
    arrays, decoder = dict(state.arrays), state.decoder
    for kind in KINDS:
        key = state.automata.get(kind.state)
        if key is not None and key == first.automata.get(kind.state):
            continue
        link = kind.state.rpartition(".")[0]
        own_names = [name for name in arrays if name == kind.state or (link and name.startswith(f"{link}."))]
        arrays |= {name: first.arrays[name] for name in own_names}
        if kind is STOP:
            decoder = dataclasses.replace(decoder, stop_state=0)
    return RowState(arrays, state.drawn, decoder, first.automata)


def _read_bytes(tokens: Ids, bundle: Bundle) -> bytes:
    return b"".join(bundle.token_bytes[int(token)] for token in tokens)
