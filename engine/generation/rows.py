"""A row of a compiled generator by itself: what it must write, its state between two calls, and how far it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gentext.errors import FileFormatError, GenError, UsageError
from gentext.exported.metadata import Bundle
from gentext.exported.signature import flat_arrays
from gentext.generation.model_calls import MAX_POSITIONS, DrawnRows
from gentext.generation.stacking import STOP, Arrays, Automaton, digest_arrays, match_tables, stop_tables
from gentext.generation.writing import Writing
from gentext.interfaces import Finish, Ids, TopSymbols
from gentext.matching.match_tables import FREE_STATE, MATCH_LINK
from gentext.sampling.decoder import DecoderState, GeneratedText, RowDecoder
from gentext.sampling.stored import is_compiled
from gentext.stop import StopAutomaton


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
    active_links: frozenset[str] = frozenset()
    """The links that its parameters turn on. A call runs each link that is on in one of its rows, for all of them."""
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
    """Whether the state after the last symbol is needed, for which a text that ends within a call is drawn again."""
    keeps_tokens: bool = True
    """Whether anybody needs the tokens and their log-probabilities, besides the number of tokens."""
    streams: bool = False
    """Whether pieces alone have the text and its tokens, so that a text of any length takes no memory."""


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
    unread: tuple[int, ...] = ()
    """The tokens of a prime that are still to be read."""


class Slot:
    """A row that is being written."""

    def __init__(self, request: RowRequest, bundle: Bundle, state: RowState) -> None:
        """``state`` is the one in which it begins, before it reads the request's prime."""
        self.request = request
        self.text = GeneratedText(request.stream)
        """The text so far, without its prime, and what its request wants to know of the tokens."""
        self.unread = np.concatenate([np.array(state.unread, np.int64), request.prime])
        """The tokens to read, those of the state first, then those of the prime."""
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
        self.decoder.restore(state.decoder)
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

    @property
    def most_symbols_left(self) -> int:
        """How many symbols it still has to draw, at most; as many as a call may have where that is not known."""
        limit = self.request.most_symbols
        return MAX_POSITIONS if limit is None else limit - self.text.token_count

    def feed(self, drawn: DrawnRows, row: int) -> str:
        """Add the tokens that a call has read or drawn in a row, and return the characters that are now certain."""
        request = self.request
        logprobs = drawn.logprob_rows[row] if request.keeps_tokens or request.echo else []
        top_symbols = None
        if request.top_count and drawn.top_symbols is not None:
            top_symbols = drawn.top_symbols[:, row, : request.top_count]
        return self.decoder.feed_tokens(drawn.token_rows[row], logprobs, top_symbols)

    def write(self, drawn: DrawnRows, row: int, finish: Finish) -> SlotPiece:
        """Add the tokens that a call has drawn in a row, and return what the text has gained.

        ``finish`` is how the row has ended by them, or "running".
        """
        text = self.text
        tokens, blocks = len(text.tokens), len(text.top_blocks)
        characters, error = "", None
        try:
            characters = self.feed(drawn, row)
        except FileFormatError as reason:  # the text would have no end; its neighbours go on
            error = reason
        if finish != "running" and not self.decoder.done:
            characters += self.decoder.end_row(finish)
        top_symbols = TopSymbols.concatenate(text.top_blocks[blocks:]) if len(text.top_blocks) > blocks else None
        new_tokens, new_logprobs = text.tokens[tokens:], text.logprobs[tokens:]
        if self.request.streams:
            text.clear()
        return SlotPiece(self, characters, text.finish, text.token_count, new_tokens, new_logprobs, top_symbols, error)


class SlotPiece(NamedTuple):
    """What a text has gained by a call."""

    slot: Slot
    text: str
    finish: Finish
    """"running", or why the text has ended."""
    token_count: int
    """Symbols of the text that were drawn so far; characters that may become a stop string are not yet in ``text``."""
    tokens: list[int]
    """The symbols that were drawn in this call; empty where the request does not keep tokens."""
    logprobs: list[float]
    """Log-probability of each of them, from the logits before the chain."""
    top_symbols: TopSymbols | None = None
    """The most probable symbols [K, T] in place of each of them, for a request that wants some."""
    error: GenError | None = None
    """Why the text cannot go on, which ends it too."""


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
