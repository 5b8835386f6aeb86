"""Checks a request for texts and prepares them, for `gen sample` and the library alike."""

from __future__ import annotations

import contextlib
import dataclasses
import numbers
import secrets
from collections.abc import Generator, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gentext.console import Bar
from gentext.describe import tokenizer_of
from gentext.errors import UsageError, refuse_exit
from gentext.exported.batch_size import choose_batch_rows, max_texts
from gentext.exported.bundle import Bundle
from gentext.generation.generate import Piece, encode_prime, generate, make_tables
from gentext.handover import check_ids
from gentext.interfaces import Finish, Ids, OpenSampler, TopSymbols
from gentext.manager import host
from gentext.matching.match_tables import MATCH_LINK
from gentext.noise import SEED_LIMIT
from gentext.sampling.chain import LinkArrays
from gentext.sampling.decoder import GeneratedText
from gentext.sampling.parameters import ChosenChain, Spelling, choose_chain
from gentext.sampling.styles import STYLES
from gentext.stop import find_unwritable, stop_problem

if TYPE_CHECKING:
    from gentext.matching.constraints import TextMatches
    from gentext.search.searching import SearchOptions

#: Texts of one request at most: the library returns all of them in one list.
MAX_TEXTS = 100_000
#: Most probable symbols of a position, at most.
MAX_TOP_LOGPROBS = 10
#: What may be done about characters of a prime that the model does not know.
UNKNOWN_POLICIES = ("error", "skip", "unknown")


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
    """Parameters of the chain's links, see `gentext.sampling.parameters.choose_chain`."""
    style: str | None = None
    """One of `gentext.sampling.styles.STYLES`, over which ``parameters`` count; None: the file's own settings."""
    match: object = None
    """The regular expression that each text matches, whole; or a list with one for each text, of which some are None.
    ``length`` is then the most characters that a text may have."""
    json_schema: object = None
    """The JSON schema by which each text is valid, instead: as a dict, or the path of a file; or a list as above."""
    match_prime: bool = False
    """Whether the prime is the beginning of what matches; else the new text alone is."""
    top_logprobs: int = 0
    """How many of the most probable symbols the texts have for each of their tokens."""
    echo: bool = False
    """Whether the texts have the log-probabilities of their primes; ``length`` may then be 0."""
    continues: bool = False
    """Whether the texts go on behind others, which a record that may end at once does."""

    @property
    def is_matched(self) -> bool:
        """Whether texts must match something."""
        return self.match is not None or self.json_schema is not None


class TextBatch(Iterator[Piece]):
    """Texts that are written side by side: an iterator over their pieces."""

    def __init__(
        self,
        primes: Sequence[str],
        seed: int,
        texts: list[GeneratedText],
        pieces: Generator[Piece, None, None],
    ) -> None:
        self.seed = seed
        self._primes = primes
        self._texts = texts
        self._pieces = pieces

    def __next__(self) -> Piece:
        return next(self._pieces)

    def close(self) -> None:
        """End all texts early, and release what the sampler holds for them."""
        self._pieces.close()

    def result(self, row: int = 0) -> WrittenText:
        """Return the text of a row as it is now."""
        return written_text(self._primes[row], self.seed, self._texts[row])

    def complete_texts(self, bar: Bar | None = None) -> Iterator[WrittenText]:
        """Write all texts; yield them in their order, each as soon as it and all before it are complete.

        :param bar: counts the characters as they are written.
        """
        row_count, next_row = len(self._texts), 0
        with contextlib.closing(self):
            for piece in self:
                if bar is not None:
                    bar.advance(len(piece.text))
                if not piece.done:
                    continue
                while next_row < row_count and self._texts[next_row].finish != "running":
                    yield self.result(next_row)
                    next_row += 1
        for row in range(next_row, row_count):  # a sampler may stop before it has ended its rows
            yield self.result(row)


@dataclasses.dataclass(frozen=True)
class Writing:
    """A checked request for texts. The model computes when the texts, or the pieces of a batch, are iterated over."""

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

    def texts(self, bar: Bar | None = None) -> Iterator[WrittenText]:
        """Write all texts; yield them in their order, each as soon as it can be.

        :param bar: counts the characters as they are written.
        """
        if self.text_count > 1 and self.options.length is not None:
            from gentext.generation.bulk import open_slots, write_texts  # a single text does not need it
            from gentext.generation.rows import row_requests

            if (slots := open_slots(self, self._batch_rows)) is not None:
                texts = write_texts(slots, row_requests(self), max_texts(self._row_characters), bar)
                for number, generated in enumerate(texts):
                    yield written_text(self.primes[number // self.options.count_per_prime], self.seed, generated)
                return
        for batch in self.batches():
            yield from batch.complete_texts(bar)

    @property
    def text_count(self) -> int:
        """The number of texts."""
        return len(self.primes) * self.options.count_per_prime

    @property
    def _row_characters(self) -> int:
        """The characters that a text and its prime have at most, counted as in BATCH_CHARACTERS."""
        longest_prime = max(len(ids) for ids in self.encoded_primes)
        return (longest_prime + (self.options.length or 0)) * (1 + self.options.top_logprobs)

    @property
    def _batch_rows(self) -> int:
        """The rows that are written side by side."""
        return choose_batch_rows(self.sampler.bundle, self.text_count, self._row_characters)

    def batches(self) -> Iterator[TextBatch]:
        """Yield the batches in which the texts are written, each ready to be iterated over."""
        for first_text in range(0, self.text_count, self._batch_rows):
            yield self._begin_batch(range(first_text, min(first_text + self._batch_rows, self.text_count)))

    def _begin_batch(self, text_numbers: range) -> TextBatch:
        options = self.options
        prime_numbers = [text_number // options.count_per_prime for text_number in text_numbers]
        texts, pieces = generate(
            self.sampler,
            self.chosen_chain.chain,
            primes=[self.encoded_primes[prime_number] for prime_number in prime_numbers],
            seed=self.seed,
            streams=[options.first_stream + text_number for text_number in text_numbers],
            length=options.length,
            param_values=self.chosen_chain.param_values,
            stops=options.stop,
            tables=self.tables,
            matches=self.matches and self.matches.of_texts(text_numbers),
            top_count=options.top_logprobs,
            echo=options.echo,
        )
        return TextBatch([self.primes[prime_number] for prime_number in prime_numbers], self.seed, texts, pieces)


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
    needed_links = [MATCH_LINK] if options.is_matched else []
    chosen_chain = choose_chain(
        sampler.bundle, host().registry, options.links, options.parameters, spelling, options.style, needed_links
    )
    encoded_primes, notes = encode_primes(sampler, primes, options.unknown, spelling.assignment("unknown", "skip"))
    seed = secrets.randbelow(2**32) if options.seed is None else int(options.seed)
    notes = [*chosen_chain.notes, *notes, *stop_notes(sampler.bundle, options.stop, spelling)]
    tables = make_tables(chosen_chain.chain, sampler.bundle)
    matches = None
    if options.is_matched:
        from gentext.matching.constraints import prepare_matches  # few requests need it

        matches = prepare_matches(sampler.bundle, chosen_chain.chain, tables, encoded_primes, options, spelling)
    return Writing(sampler, primes, encoded_primes, options, chosen_chain, tables, seed, notes, matches)


def check_options(options: WritingOptions, spelling: Spelling, primes: int = 1) -> None:
    """Raise UsageError for options that no model can fulfil with that number of primes."""
    count, max_count = options.count_per_prime, MAX_TEXTS // max(primes, 1)
    if not is_whole(count) or not 1 <= count <= max_count:
        raise UsageError(
            f"{spelling.assignment('count', count)}: expected 1 to {max_count}; "
            f"for more, run it again with another {spelling.name('seed')}"
        )
    least_length = 0 if options.echo else 1
    if options.length is not None and (not is_whole(options.length) or options.length < least_length):
        raise UsageError(
            f"{spelling.assignment('length', options.length)}: expected a whole number from {least_length}"
        )
    top_logprobs = options.top_logprobs
    if not is_whole(top_logprobs) or not 0 <= top_logprobs <= MAX_TOP_LOGPROBS:
        raise UsageError(
            f"{spelling.assignment('top_logprobs', top_logprobs)}: expected a whole number from 0 to {MAX_TOP_LOGPROBS}"
        )
    max_stream = SEED_LIMIT - count * max(primes, 1)
    for name, setting, highest in (
        ("seed", options.seed, SEED_LIMIT - 1),
        ("stream", options.first_stream, max_stream),
    ):
        if setting is not None and not (is_whole(setting) and 0 <= setting <= highest):
            raise UsageError(f"{spelling.assignment(name, setting)}: expected a whole number from 0 to {highest}")
    check_text_options(options, spelling)
    if options.style is not None and options.style not in [*STYLES]:
        raise UsageError(f"{spelling.assignment('style', options.style)}: expected {', '.join(STYLES)}")


def check_text_options(options: WritingOptions | SearchOptions, spelling: Spelling) -> None:
    """Raise UsageError for options about primes, and about what ends texts, that no model can fulfil."""
    if match_conflict := _match_problem(options, spelling):
        raise UsageError(match_conflict)
    for stop in options.stop:
        problem = stop_problem(stop) if isinstance(stop, str) else "expected a text"
        if problem:
            raise UsageError(f"{spelling.assignment('stop', stop)}: {problem}")
    if options.unknown not in UNKNOWN_POLICIES:
        raise UsageError(f"{spelling.assignment('unknown', options.unknown)}: expected error, skip or unknown")


def _match_problem(options: WritingOptions | SearchOptions, spelling: Spelling) -> str | None:
    """Return which options about what texts must match exclude each other, or None."""
    match, schema, match_prime, stop = map(spelling.name, ("match", "json_schema", "match_prime", "stop"))
    if options.match is not None and options.json_schema is not None:
        return f"{match} and {schema}: expected one of them"
    if options.is_matched and options.stop:
        name = schema if options.match is None else match
        return f"{name} and {stop}: expected one of them; a text that stops early would not match"
    if options.match_prime and not options.is_matched:
        return f"{match_prime}: expected {match} or {schema} with it"
    return None


def stop_notes(bundle: Bundle, stops: Sequence[str], spelling: Spelling) -> list[str]:
    """Return a remark for each stop string that the model cannot write."""
    if not stops:
        return []
    unknown = bundle.tokenizer.unknown  # a symbol that is never drawn
    symbols = [symbol for token, symbol in enumerate(bundle.token_bytes) if token != unknown]
    return [
        f"{spelling.assignment('stop', stop)} is never found: the model cannot write {character!r}"
        for stop, character in find_unwritable(stops, symbols).items()
    ]


def is_whole(number: object) -> bool:
    return isinstance(number, numbers.Integral)


def encode_primes(
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
