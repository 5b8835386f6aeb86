"""Checks a request for texts and prepares them, for `gen sample` and the library alike."""

from __future__ import annotations

import dataclasses
import numbers
import secrets
from collections.abc import Generator, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from gentext.describe import tokenizer_of
from gentext.errors import UsageError, refuse_exit
from gentext.generate import GeneratedText, Piece, encode_prime, generate
from gentext.handover import check_ids
from gentext.interfaces import Finish, Ids, OpenSampler
from gentext.manager import host
from gentext.noise import SEED_LIMIT
from gentext.parameters import ChosenChain, Spelling, choose_chain
from gentext.stop import stop_problem

#: Texts that are written side by side at most; each takes some memory.
MAX_TEXTS = 100_000
#: What may be done about characters of a prime that the model does not know.
UNKNOWN_POLICIES = ("error", "skip", "unknown")


@dataclasses.dataclass(frozen=True)
class WrittenText:
    """One text that a model has written, with what is needed to write it again."""

    prime: str
    """The text that it continues; it is not part of ``text``."""
    text: str
    finish: Finish
    """Why it ended: ``length``, ``stop``, or ``masked`` when the chain left no symbol to draw; else ``running``."""
    tokens: tuple[int, ...] = dataclasses.field(repr=False)
    """The id of each symbol that was drawn; a stop string, which ``text`` does not show, is among them."""
    logprobs: tuple[float, ...] = dataclasses.field(repr=False)
    """Natural logarithm of each token's probability, as the model gives it before the chain."""
    seed: int
    stream: int
    """The seed and the stream of random numbers that write the same text again."""


class WritingOptions(NamedTuple):
    """The options of a request, besides the primes. The defaults are those of ``gen sample``."""

    count_per_prime: int = 1
    """How many texts to write of each prime."""
    length: int | None = 500
    """New characters of each text; None: without end."""
    seed: int | None = None
    """None: a new one is drawn."""
    first_stream: int = 0
    """Text i of prime j is written with stream ``first_stream + count_per_prime * j + i`` of the seed."""
    stop: Sequence[str] = ()
    """Each text ends before the first of these that it would contain."""
    unknown: str = "error"
    """One of `UNKNOWN_POLICIES`."""
    links: Sequence[str] | None = None
    """The chain, as names of links; None: the file's own."""
    parameters: Mapping[str, object] = MappingProxyType({})
    """Parameters of the chain's links, see `gentext.parameters.choose_chain`."""


class Writing(Iterator[Piece]):
    """Texts that are being written: an iterator over their pieces."""

    def __init__(
        self,
        primes: Sequence[str],
        seed: int,
        chosen_chain: ChosenChain,
        notes: list[str],
        texts: list[GeneratedText],
        pieces: Generator[Piece, None, None],
    ) -> None:
        self.seed = seed
        self.chosen_chain = chosen_chain
        self.notes = notes
        """Remarks that the user should read before the text."""
        self.texts = texts
        """What each row has written so far."""
        self._primes = primes
        self._pieces = pieces

    def __next__(self) -> Piece:
        return next(self._pieces)

    def close(self) -> None:
        """End all texts early, and release what the sampler holds for them."""
        self._pieces.close()

    def results(self) -> list[WrittenText]:
        """Return the texts as they are now."""
        return [
            WrittenText(
                prime,
                generated.text,
                generated.finish,
                tuple(generated.tokens),
                tuple(generated.logprobs),
                self.seed,
                generated.stream,
            )
            for prime, generated in zip(self._primes, self.texts, strict=True)
        ]


def prepare_writing(
    sampler: OpenSampler, primes: Sequence[str], options: WritingOptions, spelling: Spelling
) -> Writing:
    """Check a request and prepare its texts. The model computes when the result is iterated over.

    Raises UsageError for an impossible option, in the words of ``spelling``, and PrimeError for a prime with characters
    that the model does not know.
    """
    for prime in primes:
        if not isinstance(prime, str):
            raise UsageError(f"{spelling.assignment('prime', prime)}: expected a text")
    check_options(options, spelling, len(primes))
    chosen_chain = choose_chain(sampler.bundle, host().registry, options.links, options.parameters, spelling)
    encoded_primes, notes = _encode_primes(sampler, primes, options.unknown, spelling.assignment("unknown", "skip"))
    seed = secrets.randbelow(2**32) if options.seed is None else int(options.seed)
    text_numbers = range(len(primes) * options.count_per_prime)
    texts, pieces = generate(
        sampler,
        chosen_chain.chain,
        primes=[encoded_primes[text_number // options.count_per_prime] for text_number in text_numbers],
        seed=seed,
        streams=[options.first_stream + text_number for text_number in text_numbers],
        length=options.length,
        param_values=chosen_chain.param_values,
        stops=options.stop,
    )
    row_primes = [primes[text_number // options.count_per_prime] for text_number in text_numbers]
    return Writing(row_primes, seed, chosen_chain, [*chosen_chain.notes, *notes], texts, pieces)


def check_options(options: WritingOptions, spelling: Spelling, primes: int = 1) -> None:
    """Raise UsageError for options that no model can fulfil with that number of primes."""
    count, max_count = options.count_per_prime, MAX_TEXTS // max(primes, 1)
    if not _is_whole(count) or not 1 <= count <= max_count:
        raise UsageError(
            f"{spelling.assignment('count', count)}: expected 1 to {max_count}; "
            f"for more, run it again with another {spelling.name('seed')}"
        )
    if options.length is not None and (not _is_whole(options.length) or options.length < 1):
        raise UsageError(f"{spelling.assignment('length', options.length)}: expected a whole number from 1")
    max_stream = SEED_LIMIT - count * max(primes, 1)
    for name, setting, highest in (
        ("seed", options.seed, SEED_LIMIT - 1),
        ("stream", options.first_stream, max_stream),
    ):
        if setting is not None and not (_is_whole(setting) and 0 <= setting <= highest):
            raise UsageError(f"{spelling.assignment(name, setting)}: expected a whole number from 0 to {highest}")
    for stop in options.stop:
        problem = stop_problem(stop) if isinstance(stop, str) else "expected a text"
        if problem:
            raise UsageError(f"{spelling.assignment('stop', stop)}: {problem}")
    if options.unknown not in UNKNOWN_POLICIES:
        raise UsageError(f"{spelling.assignment('unknown', options.unknown)}: expected error, skip or unknown")


def _is_whole(number: object) -> bool:
    return isinstance(number, numbers.Integral)


def _encode_primes(
    sampler: OpenSampler, primes: Sequence[str], policy: str, skip_option: str
) -> tuple[list[Ids], list[str]]:
    """Return the ids of each prime, and remarks about characters that are unknown.

    An empty prime needs no tokenizer, whose plugin may not be installed: the file has the bytes of each symbol.
    """
    tokenizer = tokenizer_of(sampler.bundle) if any(primes) else None
    encoded_primes: list[Ids] = []
    notes: list[str] = []
    for prime in primes:
        ids: Ids = np.empty(0, np.int64)
        if tokenizer is not None and prime:
            with refuse_exit(f"the tokenizer {sampler.bundle.tokenizer.name!r}"):
                ids, note = encode_prime(tokenizer, prime, policy, skip_option)
            ids = check_ids(sampler.bundle.tokenizer.name, ids, sampler.bundle.vocab_size)
            notes += [] if note is None else [note]
        encoded_primes.append(ids)
    return encoded_primes, notes
