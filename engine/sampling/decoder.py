"""From the tokens of one row to its text: decoding, counting characters, and stop strings."""

from __future__ import annotations

import codecs
import dataclasses
from collections.abc import Sequence

from gentext.errors import FileFormatError, PluginError
from gentext.exported.metadata import Bundle
from gentext.interfaces import Finish, Ids, TopSymbols
from gentext.stop import StopAutomaton

#: Symbols without bytes that a row may write one after another. A model that writes more of them would go on for ever.
MAX_EMPTY_SYMBOLS = 100_000
#: The error of a sampler that does not know `Request.echo`.
NO_ECHO = "the sampler does not give the log-probabilities of a prime; another sampler may have them"


@dataclasses.dataclass
class GeneratedText:
    """The text that one row has written so far, without its prime."""

    stream: int
    """Number of the stream of random numbers, among those of the seed, that the row draws with."""
    finish: Finish = "running"
    """Why the row has ended: ``length``, ``stop``, ``match``, ``end`` when it drew the boundary symbol, ``masked`` when
    the chain left no symbol to draw."""
    length: int = 0
    """Characters of the text."""
    token_count: int = 0
    """Symbols that were drawn."""
    tokens: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    """Natural logarithm of each token's probability, as the model gives it before the chain."""
    prime_tokens: list[int] = dataclasses.field(default_factory=list)
    prime_logprobs: list[float] = dataclasses.field(default_factory=list)
    """The tokens of the prime and their log-probabilities; empty where nobody asked for them."""
    prime_top_blocks: list[TopSymbols] = dataclasses.field(default_factory=list, compare=False)
    top_blocks: list[TopSymbols] = dataclasses.field(default_factory=list, compare=False)
    """The most probable symbols at each token of the prime and of the text, a block of positions at a time."""
    _parts: list[str] = dataclasses.field(default_factory=list, compare=False, repr=False)
    """The text in pieces: to add to one string would copy it each time."""

    @property
    def text(self) -> str:
        """The characters of the text."""
        self._parts = ["".join(self._parts)]
        return self._parts[0]

    def add_characters(self, characters: str) -> None:
        """Add characters at the end of the text."""
        self._parts.append(characters)
        self.length += len(characters)

    def clear(self) -> None:
        """Forget the characters and the tokens of the text, but not their numbers."""
        for written in (self._parts, self.tokens, self.logprobs, self.top_blocks):
            written.clear()

    def find_top_symbols(self) -> tuple[TopSymbols, TopSymbols] | None:
        """Return the most probable symbols [length, T] at the tokens of the prime, and of the text; None without."""
        if not (self.prime_top_blocks or self.top_blocks):
            return None
        nothing = (self.prime_top_blocks or self.top_blocks)[0][:0]
        prime_top_symbols = TopSymbols.concatenate([nothing, *self.prime_top_blocks])
        return prime_top_symbols, TopSymbols.concatenate([nothing, *self.top_blocks])


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
    excess: str = ""
    """Characters of the last symbol behind the end of a text: the first ones of a text that goes on from there."""


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
        keeps_tokens: bool = True,
    ) -> None:
        """``full_finish`` is how the row ends when it has ``length`` characters.

        With ``echo`` the tokens of the prime come before those of the text. Without ``keeps_tokens`` the tokens and
        log-probabilities of the text are counted alone.
        """
        self.result = result
        self.done = False
        self.keeps_tokens = keeps_tokens
        self._symbols, self._characters_by_token = bundle.token_bytes, bundle.characters_by_token
        self._boundary = bundle.boundary
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._length = length
        self._full_finish = full_finish
        self._stop_automaton = stop
        self._pending = self._excess = ""
        self._echoed_prime: Ids = prime if echo else prime[:0]
        self._empty_count = 0
        """Symbols without bytes since the last one that has some."""
        self._stop_state = 0

    @property
    def state(self) -> DecoderState:
        """What the decoder of a text that goes on from here begins with."""
        unfinished = self._decoder.getstate()[0]
        return DecoderState(self._pending, unfinished, self._stop_state, self._empty_count, self._excess)

    def restore(self, state: DecoderState) -> None:
        """Go on where another decoder was."""
        self._pending, self._stop_state, self._empty_count = state.pending, state.stop_state, state.empty_count
        self._decoder.setstate((state.unfinished, 0))
        self._excess = state.excess

    @property
    def length_left(self) -> int | None:
        """The characters that the text may still have, with those that are pending; None: without end."""
        return None if self._length is None else self._length - self.result.length

    def read_prime(self, prime: bytes) -> None:
        """Read a prime, or a part of it: a stop string may begin in it."""
        if self._stop_automaton is not None:
            self._stop_state = self._stop_automaton.state_after_prime(prime, self._stop_state)

    def release_before_prime(self) -> str:
        """Return what is left of the text before a prime. It stands in front of the prime, and does not count."""
        before = self._pending + self._excess + self._decoder.decode(b"", final=True)
        self._pending = self._excess = ""
        self.result.add_characters(before)
        if self._length is not None:
            self._length += len(before)
        return before

    def release_excess(self) -> str:
        """Return the first characters, which were left over when the text before ended; they may end this one too."""
        excess, self._excess = self._excess, ""
        pending, length = self._pending, self._length
        if pending and length is not None and len(pending) >= length:
            self._pending = pending[:length]
            released = self._finish_row(self._full_finish)
            self._pending, self._excess = pending[length:], excess
            return released
        return self._release_characters(excess)

    def feed_tokens(
        self, tokens: Sequence[int], logprobs: Sequence[float], top_symbols: TopSymbols | None = None
    ) -> str:
        """Take tokens [K], -1 for none, up to the end of the text, and return the characters that are now certain.

        ``logprobs`` may be empty where tokens are not kept. ``top_symbols`` are the most probable ones [K, T].

        Raises FileFormatError for a text that would have no end, PluginError for a prime that is not echoed.
        """
        if self.done:
            return ""
        if -1 in tokens:
            positions = [position for position, token in enumerate(tokens) if token >= 0]
            tokens = [tokens[position] for position in positions]
            logprobs = [logprobs[position] for position in positions] if logprobs else logprobs
            top_symbols = None if top_symbols is None else top_symbols[positions]
        echoed_count = 0
        if len(self.result.prime_tokens) < len(self._echoed_prime):
            echoed_count = self._echo_prime(tokens, logprobs, top_symbols)
            tokens, logprobs = tokens[echoed_count:], logprobs[echoed_count:]
        if not tokens:
            return ""
        count = self.result.token_count
        if self._boundary is not None and self._boundary in tokens:
            end = tokens.index(self._boundary)
            released = self._feed(tokens[:end], logprobs[:end])
            released += self._end_record(self._boundary, logprobs[end] if logprobs else 0.0)
        else:
            released = self._feed(tokens, logprobs)
        if top_symbols is not None:
            taken_count = self.result.token_count - count
            self.result.top_blocks.append(top_symbols[echoed_count : echoed_count + taken_count])
        return released

    def _echo_prime(self, tokens: Sequence[int], logprobs: Sequence[float], top_symbols: TopSymbols | None) -> int:
        """Take the tokens that are still those of the prime, and return their number."""
        result = self.result
        echoed = self._echoed_prime[len(result.prime_tokens) :][: len(tokens)].tolist()
        if tokens[: len(echoed)] != echoed:
            raise PluginError(NO_ECHO)
        result.prime_tokens += echoed
        result.prime_logprobs += logprobs[: len(echoed)]
        if top_symbols is not None:
            result.prime_top_blocks.append(top_symbols[: len(echoed)])
        return len(echoed)

    def _feed(self, tokens: Sequence[int], logprobs: Sequence[float]) -> str:
        """Take tokens that do not end a record, and return the characters that are now certain."""
        released = self._feed_plain(tokens, logprobs)
        if released is None:
            released = "".join(map(self._feed_token, tokens, logprobs or [0.0] * len(tokens)))
        return released

    def _end_record(self, boundary: int, logprob: float) -> str:
        """Take the boundary symbol, unless the text has ended, and return the characters that were pending."""
        if self.done:
            return ""
        self._count_token(boundary, logprob)
        return self.end_row("end")

    def _feed_plain(self, tokens: Sequence[int], logprobs: Sequence[float]) -> str | None:
        """Take all tokens at once, where each has bytes and the text goes on behind them; else return None."""
        characters_by_token = self._characters_by_token
        if characters_by_token is not None:
            characters = "".join([characters_by_token[token] for token in tokens])
        else:
            symbols = [self._symbols[token] for token in tokens]
            if not all(symbols):
                return None
            unfinished = self._decoder.getstate()
            characters = self._decoder.decode(b"".join(symbols))
        released = self._release_plain(characters)
        if released is None:
            if characters_by_token is None:
                self._decoder.setstate(unfinished)
            return None
        self._empty_count = 0
        self.result.token_count += len(tokens)
        if self.keeps_tokens:
            self.result.tokens += tokens
            self.result.logprobs += logprobs
        return released

    def _release_plain(self, characters: str) -> str | None:
        """Do what `_release_characters` does, for characters within which the text does not end; else return None."""
        released, pending_length, stop = self._pending + characters, 0, self._stop_automaton
        if self._length is not None and self.result.length + len(released) >= self._length:
            return None
        if stop is not None:
            state = stop.advance(self._stop_state, characters.encode())
            if stop.matched[state]:
                return None
            self._stop_state, pending_length = state, int(stop.pending[state])
        ready_count = max(0, len(released) - pending_length)
        self._pending = released[ready_count:]
        self.result.add_characters(released[:ready_count])
        return released[:ready_count]

    def _feed_token(self, token: int, logprob: float) -> str:
        """Take one token, unless the text has ended, and return the characters that are now certain."""
        if self.done:
            return ""
        self._empty_count = 0 if self._symbols[token] else self._empty_count + 1
        if self._empty_count > MAX_EMPTY_SYMBOLS:
            raise FileFormatError(
                f"the model wrote {MAX_EMPTY_SYMBOLS:,} symbols without any character, so its text would have no end; "
                f"another seed or chain may help"
            )
        self._count_token(token, logprob)
        return self._release_characters(self._decoder.decode(self._symbols[token]))

    def _count_token(self, token: int, logprob: float) -> None:
        self.result.token_count += 1
        if self.keeps_tokens:
            self.result.tokens.append(token)
            self.result.logprobs.append(logprob)

    def end_row(self, finish: Finish) -> str:
        """End the row because the sampler has ended it, and return the characters that were pending."""
        if len(self.result.prime_tokens) < len(self._echoed_prime):
            raise PluginError(NO_ECHO)
        text = self._release_characters(self._decoder.decode(b"", final=True))
        return text + ("" if self.done else self._finish_row(finish))

    def _release_characters(self, characters: str) -> str:
        """Add new characters, and return those, old and new, that cannot become a stop string any longer."""
        released = ""
        for position, character in enumerate(characters, 1):
            self._pending += character
            pending_length = 0
            if self._stop_automaton is not None:
                self._stop_state = self._stop_automaton.advance(self._stop_state, character.encode())
                stop_length = int(self._stop_automaton.matched[self._stop_state])
                if stop_length:
                    self._pending = self._pending[: max(0, len(self._pending) - stop_length)]
                    self._excess = characters[position:]
                    return released + self._finish_row("stop", released)
                pending_length = int(self._stop_automaton.pending[self._stop_state])
            ready_count = len(self._pending) - min(pending_length, len(self._pending))
            released += self._pending[:ready_count]
            self._pending = self._pending[ready_count:]
            written_length = self.result.length + len(released) + len(self._pending)
            if self._length is not None and written_length >= self._length:
                self._excess = characters[position:]
                return released + self._finish_row(self._full_finish, released)
        self.result.add_characters(released)
        return released

    def _finish_row(self, finish: Finish, released: str = "") -> str:
        """Finish the row: add the released and the pending characters to its text, and return the pending ones."""
        pending, self._pending = self._pending, ""
        self.result.add_characters(released + pending)
        self.result.finish = finish
        self.done = True
        return pending
