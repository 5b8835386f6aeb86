"""From the tokens of one row to its text: decoding, counting characters, and stop strings."""

from __future__ import annotations

import codecs
import dataclasses

import numpy as np
from numpy.typing import NDArray

from gentext.bundle import Bundle
from gentext.errors import FileFormatError, PluginError
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

    def feed_tokens(self, tokens: NDArray[np.int64], logprobs: NDArray[np.float32]) -> str:
        """Take tokens [K], -1 for none, up to the end of the text, and return the characters that are now certain.

        Raises FileFormatError for a text that would have no end, PluginError for a prime that is not echoed.
        """
        is_token = tokens >= 0
        new_tokens, new_logprobs = tokens[is_token].tolist(), logprobs[is_token].tolist()
        if self.done:
            return ""
        echoed = self._echoed_prime[len(self.result.prime_tokens) :][: len(new_tokens)].tolist()
        if echoed:
            if new_tokens[: len(echoed)] != echoed:
                raise PluginError(NO_ECHO)
            self.result.prime_tokens += echoed
            self.result.prime_logprobs += new_logprobs[: len(echoed)]
            new_tokens, new_logprobs = new_tokens[len(echoed) :], new_logprobs[len(echoed) :]
        if not new_tokens:
            return ""
        symbols = [self._symbols[token] for token in new_tokens]
        unfinished = self._decoder.getstate()
        characters = self._decoder.decode(b"".join(symbols))
        if self._is_plain(symbols, characters):
            self.result.tokens += new_tokens
            self.result.logprobs += new_logprobs
            return self._release_plain(characters)
        self._decoder.setstate(unfinished)
        released = ""
        for token, logprob in zip(new_tokens, new_logprobs, strict=True):
            if not self.done:
                released += self._feed_token(token, logprob)
        return released

    def _is_plain(self, symbols: list[bytes], characters: str) -> bool:
        """Return whether the text goes on behind these symbols, and each of them has bytes."""
        length = len(self.result.text) + len(self._pending) + len(characters)
        if (self._length is not None and length >= self._length) or not all(symbols):
            return False
        stop = self._stop_automaton
        return stop is None or not stop.matched[stop.advance(self._stop_state, characters.encode())]

    def _release_plain(self, characters: str) -> str:
        """Do what `_release_characters` does, for characters within which the text does not end."""
        self._empty_count = 0
        released, pending_length = self._pending + characters, 0
        if self._stop_automaton is not None:
            self._stop_state = self._stop_automaton.advance(self._stop_state, characters.encode())
            pending_length = int(self._stop_automaton.pending[self._stop_state])
        ready_count = max(0, len(released) - pending_length)
        self._pending = released[ready_count:]
        self.result.text += released[:ready_count]
        return released[:ready_count]

    def _feed_token(self, token: int, logprob: float) -> str:
        """Take one token, and return the characters that are now certain."""
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
