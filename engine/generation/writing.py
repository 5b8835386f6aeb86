"""Checks a request for texts and prepares them, for `gen sample` and the library alike."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gentext.errors import UsageError
from gentext.exported.batch_size import choose_batch_rows
from gentext.interfaces import Finish, Ids, OpenSampler, TopSymbols
from gentext.manager import host
from gentext.matching.match_tables import MATCH_LINK
from gentext.notebooks import surprise_html, text_html
from gentext.requests.declaration import WritingOptions
from gentext.requests.options import check_options, is_matched, stop_notes
from gentext.requests.parameters import ChosenChain, choose_chain
from gentext.requests.primes import encode_primes
from gentext.requests.spelling import Spelling
from gentext.sampling.chain import LinkArrays
from gentext.sampling.configured_chain import make_tables
from gentext.sampling.decoder import GeneratedText

if TYPE_CHECKING:
    from gentext.matching.constraints import TextMatches


@dataclasses.dataclass(frozen=True)
class WrittenText:
    """One text that a model has written, with what is needed to write it again."""

    prime: str
    """The text that it continues; it is not part of ``text``."""
    text: str
    finish: Finish
    """Why it ended: ``length``, ``stop``, ``match`` when it matches what it must, ``end`` when the model has ended a
    record, or ``masked`` when the chain left no symbol to draw; else ``running``."""
    tokens: tuple[int, ...] = dataclasses.field(repr=False)
    """The id of each symbol that was drawn. A stop string and the end of a record are among them, and
    not in ``text``."""
    logprobs: tuple[float, ...] = dataclasses.field(repr=False)
    """Natural logarithm of each token's probability, as the model gives it before the chain."""
    seed: int
    stream: int
    """The seed and the stream of random numbers that write the same text again."""
    prime_tokens: tuple[int, ...] = dataclasses.field(default=(), repr=False)
    """The id of each symbol of the prime, with ``echo``; empty without."""
    prime_logprobs: tuple[float, ...] = dataclasses.field(default=(), repr=False)
    """Natural logarithm of the probability of each of them: of the first, behind the model's start symbol."""
    top_symbols: TopSymbols | None = dataclasses.field(default=None, repr=False, compare=False)
    """With ``top_logprobs``, the most probable symbols in place of each of ``tokens``; None without."""
    prime_top_symbols: TopSymbols | None = dataclasses.field(default=None, repr=False, compare=False)
    """The same in place of each of ``prime_tokens``."""

    def _repr_html_(self) -> str:
        plural = "s" * (len(self.text) != 1)
        summary = f"{len(self.text):,} character{plural}, seed {self.seed}, stream {self.stream}, finish: {self.finish}"
        is_token_each = len(self.logprobs) == len(self.text) or (
            self.text.isascii() and len(self.logprobs) > len(self.text)  # a stop string is not in the text
        )
        if not is_token_each:
            return text_html(summary, self.text, self.prime)
        return surprise_html(summary, self.text, self.logprobs[: len(self.text)], self.prime)


@dataclasses.dataclass(frozen=True)
class Writing:
    """A checked request for texts, which `gentext.generation.texts` writes."""

    sampler: OpenSampler
    primes: Sequence[str]
    encoded_primes: Sequence[Ids]
    options: WritingOptions
    chosen_chain: ChosenChain
    tables: LinkArrays
    seed: int
    notes: list[str]
    """Remarks that the user should read before the text."""
    matches: TextMatches | None = None
    """What the texts must match."""

    @property
    def text_count(self) -> int:
        """The number of texts."""
        return len(self.primes) * self.options["count"]

    @property
    def row_characters(self) -> int:
        """The characters that a text and its prime have at most, counted as in BATCH_CHARACTERS."""
        longest_prime = max(len(ids) for ids in self.encoded_primes)
        return (longest_prime + (self.options["length"] or 0)) * (1 + self.options["top_logprobs"])

    @property
    def batch_rows(self) -> int:
        """The rows that are written side by side."""
        return choose_batch_rows(self.sampler.bundle, self.text_count, self.row_characters)


def written_text(prime: str, seed: int, generated: GeneratedText) -> WrittenText:
    """Return a text, as it is now, with what is needed to write it again."""
    prime_top_symbols, top_symbols = generated.find_top_symbols() or (None, None)
    return WrittenText(
        prime,
        generated.text,
        generated.finish,
        tuple(generated.tokens),
        tuple(generated.logprobs),
        seed,
        generated.stream,
        tuple(generated.prime_tokens),
        tuple(generated.prime_logprobs),
        top_symbols,
        prime_top_symbols,
    )


def prepare_writing(
    sampler: OpenSampler, primes: Sequence[str], options: WritingOptions, spelling: Spelling
) -> Writing:
    """Check a request and prepare its texts.

    Raises UsageError for an impossible option, in the words of ``spelling``, and PrimeError for a prime with characters
    that the model does not know.
    """
    for prime in primes:
        if not isinstance(prime, str):
            raise UsageError(f"{spelling.assignment('prime', prime)}: expected a text")
    check_options(options, spelling, len(primes))
    needed_links = [MATCH_LINK] if is_matched(options) else []
    chosen_chain = choose_chain(
        sampler.bundle,
        host().registry,
        options["chain"],
        options["parameters"],
        spelling,
        options["style"],
        needed_links,
    )
    encoded_primes, notes = encode_primes(sampler, primes, options["unknown"], spelling.assignment("unknown", "skip"))
    seed = secrets.randbelow(2**32) if options["seed"] is None else int(options["seed"])
    notes = [*chosen_chain.notes, *notes, *stop_notes(sampler.bundle, options["stop"], spelling)]
    tables = make_tables(chosen_chain.chain, sampler.bundle)
    matches = None
    if is_matched(options):
        from gentext.matching.constraints import prepare_matches  # few requests need it

        matches = prepare_matches(sampler.bundle, chosen_chain.chain, tables, encoded_primes, options, spelling)
    return Writing(sampler, primes, encoded_primes, options, chosen_chain, tables, seed, notes, matches)
