"""A row of a compiled generator by itself: what it must write, and how far it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from gentext.errors import UsageError
from gentext.exported.metadata import Bundle
from gentext.exported.signature import flat_arrays
from gentext.generation.row_request import RowRequest
from gentext.generation.row_state import FirstStates, RowState
from gentext.generation.stacking import STOP, digest_arrays, match_tables, stop_tables
from gentext.generation.writing import Writing
from gentext.matching.match_tables import FREE_STATE, MATCH_LINK
from gentext.sampling.decoder import GeneratedText, RowDecoder
from gentext.sampling.stored import is_compiled
from gentext.stop import StopAutomaton


class Slot:
    """A row that is being written."""

    def __init__(self, request: RowRequest, bundle: Bundle, unread: tuple[int, ...] = ()) -> None:
        """``unread`` are tokens to read before the request's prime."""
        self.request = request
        self.text = GeneratedText(request.stream)
        """The text so far, without its prime, and what its request wants to know of the tokens."""
        self.unread = np.concatenate([np.array(unread, np.int64), request.prime]) if unread else request.prime
        """The tokens of the prime that are still to be read."""
        self.decoder = RowDecoder(
            self.text,
            bundle,
            request.length,
            request.stop,
            self.unread,
            request.full_finish,
            request.echo,
            request.keeps_tokens,
        )
        self.has_begun = False
        """Whether it has taken part in a call, or has ended without one."""
        self.is_free = False
        """Whether its text has ended, or nobody wants the rest of it."""
        self.last_state: RowState | None = None
        """The state after the last symbol of a text that has ended, for a request that keeps it. That of a record is in
        front of its end."""

    @property
    def waits(self) -> bool:
        """Whether it has no symbol yet."""
        return not self.text.token_count and self.text.finish == "running"


def row_requests(
    writing: Writing, *, keeps_state: bool = False, keeps_tokens: bool = True, streams: bool = False
) -> Iterator[RowRequest]:
    """Yield a request for each text of a checked request, in order.

    The last three set the fields of `RowRequest`; who asks for log-probabilities gets the tokens in any case.

    Raises UsageError where the chain is not the one that is compiled into the file.
    """
    options, chain, bundle = writing.options, writing.chosen_chain.chain, writing.sampler.bundle
    if not is_compiled(bundle, chain):
        raise UsageError(
            f"the chain {', '.join(chain.names)} is not compiled into the file, whose chain is "
            f"{', '.join(link.name for link in bundle.chain) or 'empty'}; compile it: gen export RUN --chain "
            f"{','.join(chain.names)}"
        )
    link_params = chain.param_arrays(1, writing.chosen_chain.param_values)
    active_links = frozenset(chain.active(link_params, {}).names)
    params = flat_arrays(link_params)
    tables = flat_arrays({link: arrays for link, arrays in writing.tables.items() if link != MATCH_LINK})
    tables_key = digest_arrays(tables)
    most_symbols = options["length"] if bundle.has_one_character_symbols else None
    stop = StopAutomaton(options["stop"]) if options["stop"] else None
    stop_automata = {} if stop is None else {STOP.state: stop_tables(stop, bundle.token_bytes)}
    matches = writing.matches
    expressions = None if matches is None else match_tables(matches.tables)
    for number in range(len(writing.primes) * options["count"]):
        request = RowRequest(
            prime=writing.encoded_primes[number // options["count"]],
            seed=writing.seed,
            stream=options["stream"] + number,
            length=options["length"],
            most_symbols=most_symbols,
            params=params,
            tables=tables,
            tables_key=tables_key,
            automata=stop_automata,
            active_links=active_links,
            stop=stop,
            top_count=min(options["top_logprobs"], bundle.vocab_size),
            echo=options["echo"],
            keeps_state=keeps_state,
            keeps_tokens=keeps_tokens or options["echo"] or options["top_logprobs"] > 0,
            streams=streams,
        )
        if matches is not None and expressions is not None and matches.first_states[number] != FREE_STATE:
            first = {"first_state": matches.first_states[number], "budget": matches.budgets[number]}
            request = dataclasses.replace(
                request,
                params=params | {f"{MATCH_LINK}.{name}": np.array([[integer]]) for name, integer in first.items()},
                automata=stop_automata | {expressions.kind.state: expressions},
                active_links=active_links | {MATCH_LINK},
                full_finish="match",
            )
        yield request


def begin_slot(
    request: RowRequest, state: RowState | None, bundle: Bundle, first_states: FirstStates
) -> tuple[Slot, RowState]:
    """Return a slot and the state of its row before it reads its prime, from a state to go on with, or None.

    Raises UsageError for a state that no row of this file can have.
    """
    state = first_states.make(request) if state is None else first_states.enter(state, request)
    slot = Slot(request, bundle, state.unread)
    slot.decoder.restore(state.decoder)
    return slot, state
