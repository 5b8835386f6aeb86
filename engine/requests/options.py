"""What a request for texts may ask for, and the checks of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack, cast

from gentext.arguments import defaults_of
from gentext.errors import UsageError
from gentext.exported.metadata import Bundle
from gentext.noise import SEED_LIMIT
from gentext.requests.declaration import MAX_TEXTS, SearchArguments, WritingOptions
from gentext.requests.declared_options import Range, check_ranges, is_whole, ranges_of
from gentext.requests.spelling import Spelling
from gentext.requests.styles import STYLES
from gentext.stop import find_unwritable, stop_problem

#: What may be done about characters of a prime that the model does not know.
UNKNOWN_POLICIES = ("error", "skip", "unknown")


#: What requests have that do not say otherwise.
DEFAULTS = cast(WritingOptions, defaults_of(WritingOptions))


def writing_options(**given: Unpack[WritingOptions]) -> WritingOptions:
    """Return the options of a request, with the defaults of the library for those that are not given."""
    return {**DEFAULTS, **given}


def is_matched(options: WritingOptions | SearchArguments) -> bool:
    """Return whether texts must match something."""
    return options["match"] is not None or options["json_schema"] is not None


def check_options(options: WritingOptions, spelling: Spelling, primes: int = 1) -> None:
    """Raise UsageError for options that no model can fulfil with that number of primes."""
    count, max_count = options["count"], MAX_TEXTS // max(primes, 1)
    if not is_whole(count) or not 1 <= count <= max_count:
        raise UsageError(
            f"{spelling.assignment('count', count)}: expected 1 to {max_count}; "
            f"for more, run it again with another {spelling.name('seed')}"
        )
    ranges = ranges_of(WritingOptions) | {
        "length": Range(0 if options["echo"] else 1, None, allows_none=True),
        "stream": Range(0, SEED_LIMIT - count * max(primes, 1)),
    }
    check_ranges(options, ranges, spelling)
    check_text_options(options, spelling)
    style = options["style"]
    if style is not None and style not in [*STYLES]:
        raise UsageError(f"{spelling.assignment('style', style)}: expected {', '.join(STYLES)}")


def check_text_options(options: WritingOptions | SearchArguments, spelling: Spelling) -> None:
    """Raise UsageError for options about primes, and about what ends texts, that no model can fulfil."""
    if match_conflict := _match_problem(options, spelling):
        raise UsageError(match_conflict)
    for stop in options["stop"]:
        problem = stop_problem(stop) if isinstance(stop, str) else "expected a text"
        if problem:
            raise UsageError(f"{spelling.assignment('stop', stop)}: {problem}")
    if options["unknown"] not in UNKNOWN_POLICIES:
        raise UsageError(f"{spelling.assignment('unknown', options['unknown'])}: expected error, skip or unknown")


def _match_problem(options: WritingOptions | SearchArguments, spelling: Spelling) -> str | None:
    """Return which options about what texts must match exclude each other, or None."""
    match, schema, match_prime, stop = map(spelling.name, ("match", "json_schema", "match_prime", "stop"))
    if options["match"] is not None and options["json_schema"] is not None:
        return f"{match} and {schema}: expected one of them"
    if is_matched(options) and options["stop"]:
        name = schema if options["match"] is None else match
        return f"{name} and {stop}: expected one of them; a text that stops early would not match"
    if options["match_prime"] and not is_matched(options):
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
