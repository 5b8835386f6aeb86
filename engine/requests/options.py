"""What a request for texts may ask for, and the checks of it."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from gentext.errors import UsageError
from gentext.exported.bundle import Bundle
from gentext.noise import SEED_LIMIT
from gentext.requests.spelling import Spelling
from gentext.requests.styles import STYLES
from gentext.stop import find_unwritable, stop_problem

#: Texts of one request at most: the library returns all of them in one list.
MAX_TEXTS = 100_000
#: Most probable symbols of a position, at most.
MAX_TOP_LOGPROBS = 10
#: What may be done about characters of a prime that the model does not know.
UNKNOWN_POLICIES = ("error", "skip", "unknown")


class TextOptions(Protocol):
    """What requests to write texts and to search for them have in common: see `WritingOptions`."""

    @property
    def stop(self) -> Sequence[str]: ...

    @property
    def unknown(self) -> str: ...

    @property
    def match(self) -> object: ...

    @property
    def json_schema(self) -> object: ...

    @property
    def match_prime(self) -> bool: ...

    @property
    def is_matched(self) -> bool: ...


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
    """Parameters of the chain's links, see `gentext.requests.parameters.choose_chain`."""
    style: str | None = None
    """One of `gentext.requests.styles.STYLES`, over which ``parameters`` count; None: the file's own settings."""
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


def check_text_options(options: TextOptions, spelling: Spelling) -> None:
    """Raise UsageError for options about primes, and about what ends texts, that no model can fulfil."""
    if match_conflict := _match_problem(options, spelling):
        raise UsageError(match_conflict)
    for stop in options.stop:
        problem = stop_problem(stop) if isinstance(stop, str) else "expected a text"
        if problem:
            raise UsageError(f"{spelling.assignment('stop', stop)}: {problem}")
    if options.unknown not in UNKNOWN_POLICIES:
        raise UsageError(f"{spelling.assignment('unknown', options.unknown)}: expected error, skip or unknown")


def _match_problem(options: TextOptions, spelling: Spelling) -> str | None:
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
