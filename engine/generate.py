"""From the tokens of a sampler to text: decoding, counting characters, and stop strings."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import itertools
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gentext.bundle import Bundle
from gentext.chain import Chain, LinkArrays
from gentext.describe import tokenizer_of
from gentext.errors import FileFormatError, PluginError, PrimeError
from gentext.handover import checked_chunks
from gentext.interfaces import Chunk, Finish, Ids, OpenSampler, Request, Tokenizer, TopSymbols
from gentext.match_tables import FREE_STATE, MATCH_LINK
from gentext.noise import check_seed
from gentext.stop import StopAutomaton

if TYPE_CHECKING:  # most requests have none
    from gentext.matching import TextMatches

#: Symbols without bytes that a row may write one after another. A model that writes more of them would go on for ever.
MAX_EMPTY_SYMBOLS = 100_000

#: The error of a sampler that does not know `Request.echo`.
NO_ECHO = "the sampler does not give the log-probabilities of a prime; another sampler may have them"


@dataclasses.dataclass
class GeneratedText:
    """The text that one row has written so far, without its prime."""

    stream: int
    """Number of the stream of random numbers, among those of the seed, that the row draws with."""
    text: str = ""
    finish: Finish = "running"
    """Why the row has ended: ``length``, ``stop``, ``match``, or ``masked`` when the chain left no symbol to draw."""
    tokens: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    """Natural logarithm of each token's probability, as the model gives it before the chain."""
    prime_tokens: list[int] = dataclasses.field(default_factory=list)
    prime_logprobs: list[float] = dataclasses.field(default_factory=list)
    """The tokens of the prime and their log-probabilities; empty where nobody asked for them."""
    top_blocks: list[TopSymbols] = dataclasses.field(default_factory=list)
    """The most probable symbols at each token of the prime and of the text, a block of positions at a time."""

    def find_top_symbols(self) -> tuple[TopSymbols, TopSymbols] | None:
        """Return the most probable symbols [length, T] at the tokens of the prime, and of the text; None without."""
        if not self.top_blocks:
            return None
        top_symbols, prime_length = TopSymbols.concatenate(self.top_blocks), len(self.prime_tokens)
        return top_symbols[:prime_length], top_symbols[prime_length:]


class Piece(NamedTuple):
    """Some new characters of one row; ``done`` when no others will follow."""

    row: int
    text: str
    done: bool


def generate(
    sampler: OpenSampler,
    chain: Chain,
    *,
    primes: Sequence[Ids],
    seed: int,
    streams: Sequence[int] | None = None,
    length: int | None = 200,
    param_values: dict[str, dict[str, float]] | None = None,
    stops: Sequence[str] = (),
    tables: LinkArrays | None = None,
    matches: TextMatches | None = None,
    top_count: int = 0,
    echo: bool = False,
) -> tuple[list[GeneratedText], Generator[Piece, None, None]]:
    """Write one text after each prime, of exactly ``length`` new characters (None: without end; 0: read the primes).

    Row r draws with stream ``streams[r]`` of the seed, r itself by default. The text of a row depends on its prime,
    the seed and its stream alone, not on the other rows. ``param_values`` sets parameters of the chain's links, by link
    and name. ``tables`` are those of the chain's links; when None, the links make them from their own options.
    ``matches`` is what the texts must match; the chain then has the link `match`. The texts have the ``top_count`` most
    probable symbols at each token, and with ``echo`` the log-probabilities of the primes.

    Returns the texts, which grow while the iterator is consumed, and an iterator over their pieces.
    """
    check_seed(seed)
    if streams is None:
        streams = range(len(primes))
    stop = StopAutomaton(stops) if stops else None
    bundle = sampler.bundle
    tables = make_tables(chain, bundle) if tables is None else tables
    params = chain.param_arrays(len(primes), param_values)
    full_finishes: list[Finish] = ["length"] * len(primes)
    if matches is not None:
        tables = {**tables, MATCH_LINK: matches.tables}
        params[MATCH_LINK]["first_state"][:, 0] = matches.first_states
        params[MATCH_LINK]["budget"][:, 0] = matches.budgets
        # With all of its characters, a text that follows an expression matches it.
        full_finishes = ["length" if state == FREE_STATE else "match" for state in matches.first_states]
    request = Request(
        primes=primes,
        seeds=[(seed, stream) for stream in streams],
        chain=chain,
        params=params,
        tables=tables,
        stop=stop,
        max_tokens=length if length == 0 or has_one_character_symbols(bundle) else None,
        top_count=top_count,
        echo=echo,
    )
    decoders = [
        RowDecoder(GeneratedText(stream), bundle, length, stop, prime, full_finish, echo)
        for stream, prime, full_finish in zip(streams, primes, full_finishes, strict=True)
    ]
    return [decoder.result for decoder in decoders], _decode_chunks(sampler, request, decoders)


def _decode_chunks(sampler: OpenSampler, request: Request, decoders: list[RowDecoder]) -> Generator[Piece, None, None]:
    with contextlib.closing(checked_chunks(sampler, request)) as chunks:
        for chunk in chunks:
            for row, decoder in enumerate(decoders):
                if decoder.done:
                    continue
                text = _decode_row(chunk, row, decoder)
                if text or decoder.done:
                    yield Piece(row, text, decoder.done)
            if all(decoder.done for decoder in decoders):
                return


def _decode_row(chunk: Chunk, row: int, decoder: RowDecoder) -> str:
    """Return the characters that one row gains by a chunk."""
    text = ""
    for token, logprob in zip(chunk.tokens[:, row], chunk.logprobs[:, row], strict=True):
        text += decoder.feed_token(int(token), float(logprob))
    if chunk.top_symbols is not None:
        decoder.add_top_symbols(chunk.tokens[:, row], chunk.top_symbols, row)
    if not decoder.done and chunk.finish[row] != "running":
        text += decoder.end_row(chunk.finish[row])
    return text


def make_tables(chain: Chain, bundle: Bundle) -> LinkArrays:
    """Return the tables of a chain's links.

    Only links that make tables need the tokenizer, whose plugin may not be installed. The links of a compiled file
    keep the tables that they were compiled with.
    """
    if not any(link.strategy.makes_tables for link in chain):
        return {}
    return chain.table_arrays(tokenizer_of(bundle))


def encode_prime(
    tokenizer: Tokenizer, text: str, policy: str, skip_option: str = "--unknown skip"
) -> tuple[Ids, str | None]:
    """Encode a prime. ``policy`` decides about characters that the model does not know.

    error: raise PrimeError naming the first one; skip: leave them out; unknown: use the unknown
    symbol. ``skip_option`` is how messages spell the advice to leave them out. Returns the ids, and a line to show
    when something was left out or replaced.
    """
    unknown_positions = tokenizer.unknown_at(text)
    if not unknown_positions:
        return tokenizer.encode(text), None
    first_unknown = f"{text[unknown_positions[0]]!r} at position {unknown_positions[0]}"
    if policy == "skip":
        is_known = np.ones(len(text), np.bool_)
        is_known[unknown_positions] = False
        known_text = "".join(itertools.compress(text, is_known))
        note = f"{len(unknown_positions)} characters of the prime are unknown and left out, first {first_unknown}"
        return tokenizer.encode(known_text), note
    if policy == "unknown" and tokenizer.unknown is not None:
        return tokenizer.encode(
            text
        ), f"{len(unknown_positions)} characters of the prime are unknown, first {first_unknown}"
    if policy == "unknown":
        raise PrimeError(f"the prime has {first_unknown}, and this model has no unknown symbol; use {skip_option}")
    raise PrimeError(
        f"the prime has {first_unknown}, which the model's {tokenizer.vocab_size} symbols do not include; "
        f"leave it out, or use {skip_option}"
    )


def has_one_character_symbols(bundle: Bundle) -> bool:
    """Return whether every symbol is exactly one character."""
    try:
        return all(len(symbol.decode("utf-8")) == 1 for symbol in bundle.token_bytes)
    except UnicodeDecodeError:
        return False


@dataclasses.dataclass(frozen=True)
class DecoderState:
    """What a decoder knows between two tokens, besides the text that it has given out."""

    pending: str = ""
    """Characters that may become a stop string."""
    unfinished: bytes = b""
    """The first bytes of a character."""
    stop_state: int = 0
    """The state of the stop automaton after all characters, those that are pending too."""
    empty_count: int = 0
    """Symbols without bytes since the last one that has some."""


class RowDecoder:
    """Turns the tokens of one row into text, and decides when the row is done.

    Characters that may become a stop string are kept pending until that is certain.
    """

    def __init__(
        self,
        result: GeneratedText,
        bundle: Bundle,
        length: int | None,
        stop: StopAutomaton | None,
        prime: Ids,
        full_finish: Finish,
        echo: bool = False,
    ) -> None:
        """``full_finish`` is how the row ends when it has ``length`` characters.

        With ``echo`` the tokens of the prime come before those of the text.
        """
        self.result = result
        self.done = False
        self._symbols = bundle.token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._length = length
        self._full_finish = full_finish
        self._stop_automaton = stop
        self._pending = ""
        self._echoed_prime: Ids = prime if echo else prime[:0]
        self._top_count = 0
        """Positions that the result has the most probable symbols of."""
        self._empty_count = 0
        """Symbols without bytes since the last one that has some."""
        self._stop_state = 0
        if stop is not None:
            self._stop_state = stop.state_after_prime(b"".join(self._symbols[int(token)] for token in prime))

    @property
    def state(self) -> DecoderState:
        """What the decoder of a text that goes on from here begins with."""
        return DecoderState(self._pending, self._decoder.getstate()[0], self._stop_state, self._empty_count)

    def restore(self, state: DecoderState) -> None:
        """Go on where another decoder was."""
        self._pending, self._stop_state, self._empty_count = state.pending, state.stop_state, state.empty_count
        self._decoder.setstate((state.unfinished, 0))

    def append_prime(self, prime: bytes) -> None:
        """Read a prime in the middle of a text: what was pending before it stays in front of it."""
        self.result.text += self._pending + self._decoder.decode(b"", final=True)
        self._pending = ""
        if self._stop_automaton is not None:
            self._stop_state = self._stop_automaton.state_after_prime(prime, self._stop_state)

    def feed_token(self, token: int, logprob: float) -> str:
        """Take one token, or -1 for none, and return the characters that are now certain."""
        if self.done or token < 0:
            return ""
        prime_position = len(self.result.prime_tokens)
        if prime_position < len(self._echoed_prime):
            if token != self._echoed_prime[prime_position]:
                raise PluginError(NO_ECHO)
            self.result.prime_tokens.append(token)
            self.result.prime_logprobs.append(logprob)
            return ""
        self._empty_count = 0 if self._symbols[token] else self._empty_count + 1
        if self._empty_count > MAX_EMPTY_SYMBOLS:
            raise FileFormatError(
                f"the model wrote {MAX_EMPTY_SYMBOLS:,} symbols without any character, so its text would have no end; "
                f"another seed or chain may help"
            )
        self.result.tokens.append(token)
        self.result.logprobs.append(logprob)
        return self._release_characters(self._decoder.decode(self._symbols[token]))

    def add_top_symbols(self, tokens: NDArray[np.int64], top_symbols: TopSymbols, row: int) -> None:
        """Take the most probable symbols [K, N, T] at those of a row's tokens [K] that were fed and taken."""
        new_count = len(self.result.prime_tokens) + len(self.result.tokens) - self._top_count
        self._top_count += new_count
        self.result.top_blocks.append(top_symbols[np.flatnonzero(tokens >= 0)[:new_count], row])

    def end_row(self, finish: Finish) -> str:
        """End the row because the sampler has ended it, and return the characters that were pending."""
        if len(self.result.prime_tokens) < len(self._echoed_prime):
            raise PluginError(NO_ECHO)
        text = self._release_characters(self._decoder.decode(b"", final=True))
        return text + ("" if self.done else self._finish_row(finish))

    def _release_characters(self, characters: str) -> str:
        """Add new characters, and return those, old and new, that cannot become a stop string any longer."""
        released = ""
        for character in characters:
            self._pending += character
            pending_length = 0
            if self._stop_automaton is not None:
                self._stop_state = self._stop_automaton.advance(self._stop_state, character.encode())
                stop_length = int(self._stop_automaton.matched[self._stop_state])
                if stop_length:
                    self._pending = self._pending[: max(0, len(self._pending) - stop_length)]
                    return released + self._finish_row("stop", released)
                pending_length = int(self._stop_automaton.pending[self._stop_state])
            ready_count = len(self._pending) - min(pending_length, len(self._pending))
            released += self._pending[:ready_count]
            self._pending = self._pending[ready_count:]
            written_length = len(self.result.text) + len(released) + len(self._pending)
            if self._length is not None and written_length >= self._length:
                return released + self._finish_row(self._full_finish, released)
        self.result.text += released
        return released

    def _finish_row(self, finish: Finish, released: str = "") -> str:
        """Finish the row: add the released and the pending characters to its text, and return the pending ones."""
        pending, self._pending = self._pending, ""
        self.result.text += released + pending
        self.result.finish = finish
        self.done = True
        return pending
