"""From a sampler's tokens to text: decoding, counting characters, holding back stop strings."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from gentext.bundle import Bundle
from gentext.chain import Chain, LinkArrays
from gentext.describe import tokenizer_of
from gentext.errors import PrimeError
from gentext.interfaces import Finish, Ids, OpenSampler, Request, Tokenizer
from gentext.noise import check_seed
from gentext.stop import StopAutomaton
from gentext.stored import StoredStrategy


@dataclasses.dataclass
class GeneratedText:
    """What one row has written so far."""

    stream: int
    text: str = ""
    finish: Finish = "running"
    tokens: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Piece:
    """Some new characters of one row; ``done`` when it writes no more."""

    row: int
    text: str
    done: bool


def generate(
    sampler: OpenSampler,
    chain: Chain,
    *,
    prime: Ids,
    seed: int,
    count: int = 1,
    length: int | None = 200,
    values: dict[str, dict[str, float]] | None = None,
    stops: Sequence[str] = (),
    tables: LinkArrays | None = None,
) -> tuple[list[GeneratedText], Iterator[Piece]]:
    """Write ``count`` texts of exactly ``length`` new characters each (None: without end).

    ``tables`` are those of the chain's links; when None, those that their own options give.
    Returns the texts, which fill as the iterator is consumed, and the pieces as they come.
    The same seed gives the same text whatever ``count`` is: row r is stream r of the seed.
    """
    check_seed(seed)
    stop = StopAutomaton(stops) if stops else None
    bundle = sampler.bundle
    request = Request(
        primes=[prime] * count,
        seeds=[(seed, stream) for stream in range(count)],
        chain=chain,
        params=chain.param_arrays(count, values),
        tables=_tables(chain, bundle) if tables is None else tables,
        stop=stop,
        max_tokens=length if length is not None and _one_to_one(bundle) else None,
    )
    rows = [_Row(GeneratedText(stream), bundle, length, stop, prime) for stream in range(count)]
    return [row.result for row in rows], _pieces(sampler, request, rows)


def _pieces(sampler: OpenSampler, request: Request, rows: list[_Row]) -> Iterator[Piece]:
    with contextlib.ExitStack() as stack:
        chunks = sampler.generate(request)
        if hasattr(chunks, "close"):  # any iterator will do, not generators alone
            stack.callback(chunks.close)
        for chunk in chunks:
            for index, row in enumerate(rows):
                if row.done:
                    continue
                text = "".join(
                    row.feed(int(token), float(logprob))
                    for token, logprob in zip(chunk.tokens[:, index], chunk.logprobs[:, index], strict=True)
                )
                if not row.done and chunk.finish[index] != "running":
                    text += row.end(chunk.finish[index])
                if text or row.done:
                    yield Piece(index, text, row.done)
            if all(row.done for row in rows):
                return


def _tables(chain: Chain, bundle: Bundle) -> LinkArrays:
    """Make the tables of a chain; without any, a file's tokenizer need not be installed.

    A chain that a file has inside keeps the tables that it was compiled with.
    """
    if not any(link.strategy.tables and not isinstance(link.strategy, StoredStrategy) for link in chain):
        return {}
    return chain.table_arrays(tokenizer_of(bundle))


def encode_prime(tokenizer: Tokenizer, text: str, policy: str) -> tuple[Ids, str | None]:
    """Encode a prime; ``policy`` says what to do about characters that the model does not know.

    error: raise PrimeError naming the first one; skip: leave them out; unknown: use the unknown
    symbol. Returns the ids and a line to show, when something was left out or replaced.
    """
    strange = tokenizer.unknown_at(text)
    if not strange:
        return tokenizer.encode(text), None
    first = f"{text[strange[0]]!r} at position {strange[0]}"
    if policy == "skip":
        keep = "".join(char for at, char in enumerate(text) if at not in set(strange))
        return tokenizer.encode(keep), f"{len(strange)} characters of the prime are unknown and left out, first {first}"
    if policy == "unknown" and tokenizer.unknown is not None:
        return tokenizer.encode(text), f"{len(strange)} characters of the prime are unknown, first {first}"
    if policy == "unknown":
        raise PrimeError(f"the prime has {first}, and this model has no unknown symbol; use --unknown skip")
    raise PrimeError(
        f"the prime has {first}, which the model's {tokenizer.vocab_size} symbols do not include; "
        f"leave it out, or use --unknown skip"
    )


def _one_to_one(bundle: Bundle) -> bool:
    """Tell whether every symbol is exactly one character."""
    try:
        return all(len(data.decode("utf-8")) == 1 for data in bundle.token_bytes)
    except UnicodeDecodeError:
        return False


class _Row:
    """Decodes one row and decides when it is done."""

    def __init__(
        self, result: GeneratedText, bundle: Bundle, length: int | None, stop: StopAutomaton | None, prime: Ids
    ) -> None:
        self.result = result
        self.done = False
        self._bytes = bundle.token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._length = length
        self._stop = stop
        self._held = ""
        self._state = (
            stop.state_after_prime(b"".join(self._bytes[int(token)] for token in prime)) if stop is not None else 0
        )

    def feed(self, token: int, logprob: float) -> str:
        """Take one token and return the characters that are now certain."""
        if self.done or token < 0:
            return ""
        self.result.tokens.append(token)
        self.result.logprobs.append(logprob)
        return self._take(self._decoder.decode(self._bytes[token]))

    def end(self, finish: Finish) -> str:
        """End the row because the sampler says so, and return what was held back."""
        text = self._take(self._decoder.decode(b"", final=True))
        return text + ("" if self.done else self._close(finish))

    def _take(self, characters: str) -> str:
        released = ""
        for character in characters:
            self._held += character
            if self._stop is not None:
                self._state = self._stop.advance(self._state, character.encode())
                matched = int(self._stop.matched[self._state])
                if matched:
                    self._held = self._held[: max(0, len(self._held) - matched)]
                    return released + self._close("stop", released)
            keep = int(self._stop.pending[self._state]) if self._stop is not None else 0
            ready = len(self._held) - min(keep, len(self._held))
            released += self._held[:ready]
            self._held = self._held[ready:]
            if self._length is not None and len(self.result.text) + len(released) + len(self._held) >= self._length:
                return released + self._close("length", released)
        self.result.text += released
        return released

    def _close(self, finish: Finish, before: str = "") -> str:
        """Finish the row: release what is held, and record the text."""
        last, self._held = self._held, ""
        self.result.text += before + last
        self.result.finish = finish
        self.done = True
        return last
