"""Checks a request for the most probable texts and prepares the search, for `gen best` and the library alike."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, Unpack, cast, overload, runtime_checkable

import numpy as np

from gentext.arguments import defaults_of
from gentext.components.samplers import describe_sampler
from gentext.console import Bar
from gentext.errors import PluginError, UsageError
from gentext.exported.metadata import Bundle
from gentext.interfaces import OpenSampler
from gentext.requests.declaration import DEFAULT_SEARCH_LENGTH, MAX_SEARCH_LENGTH, SearchArguments
from gentext.requests.declared_options import check_ranges, ranges_of
from gentext.requests.options import check_text_options, is_matched, stop_notes
from gentext.requests.primes import encode_primes
from gentext.requests.spelling import Spelling
from gentext.search.best import TextSearch
from gentext.search.endings import TextEndings, check_spelling
from gentext.search.prefixes import BestText, prefix_bytes
from gentext.stepping import StepModel
from gentext.stop import StopAutomaton

if TYPE_CHECKING:
    from gentext.matching.match import MatchAutomaton

#: Bounds of the temperature; smaller or greater ones would only lead to rounding errors.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 100.0
#: Bytes of a megabyte, in which the memory is set.
MEGABYTE = 10**6
#: Beginnings that a search must have memory for.
MIN_PREFIXES = 64
#: Characters of a text that nothing ends, above which the search hardly ever comes to an end.
LONG_TEXT = 100


@runtime_checkable
class SteppedSampler(StepModel, Protocol):
    """An opened sampler that gives logits for tokens and states, and has a bundle."""

    bundle: Bundle


@dataclasses.dataclass(frozen=True)
class BestTexts(Sequence[BestText]):
    """The most probable texts, in order. `TextModel.best` returns an instance."""

    texts: tuple[BestText, ...]
    bound: float
    """No text that is missing has a greater log-probability than this; -inf where none is missing."""
    is_complete: bool
    """Whether there are as many texts as were asked for, or all that exist; else the memory was used up."""
    is_exact: bool
    """Whether these are proven to be the most probable texts; a beam may have lost some."""

    @overload
    def __getitem__(self, index: int) -> BestText: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[BestText, ...]: ...
    def __getitem__(self, index: int | slice) -> BestText | tuple[BestText, ...]:
        return self.texts[index]

    def __len__(self) -> int:
        return len(self.texts)


def search_options(**given: Unpack[SearchArguments]) -> SearchArguments:
    """Return the options of a search, with the defaults of the library for those that are not given."""
    return {**cast(SearchArguments, defaults_of(SearchArguments)), **given}


@dataclasses.dataclass
class Searching:
    """A checked request for the most probable texts. The model computes when `texts` is iterated over."""

    search: TextSearch
    notes: list[str]
    """Remarks that the user should read before the texts."""
    found_texts: list[BestText] = dataclasses.field(default_factory=list)
    """The texts that are proven so far."""

    def texts(self, bar: Bar) -> Iterator[BestText]:
        """Yield the texts in order, each as soon as it is proven; see `TextSearch.find`."""
        for text in self.search.find(bar):
            self.found_texts.append(text)
            yield text

    def result(self) -> BestTexts:
        """Return what is proven so far."""
        search = self.search
        return BestTexts(tuple(self.found_texts), search.bound, search.is_complete, search.is_exact)


def prepare_search(sampler: OpenSampler, prime: str, options: SearchArguments, spelling: Spelling) -> Searching:
    """Check a request and prepare its search.

    Raises UsageError for an impossible option, in the words of ``spelling``, or for a model whose symbols spell a text
    in several ways; PrimeError for a prime with characters that the model does not know; PluginError for a sampler that
    gives no logits.
    """
    if not isinstance(prime, str):
        raise UsageError(f"{spelling.assignment('prime', prime)}: expected a text")
    check_search_options(options, spelling)
    if not isinstance(sampler, SteppedSampler):
        raise PluginError(
            f"{describe_sampler(sampler)} cannot search texts: it lacks initial(rows) and advance(tokens, state), "
            f"which give logits; open the model with another sampler, such as onnx"
        )
    bundle = sampler.bundle
    if options["length"] is None:
        options = options | {"length": _default_length(bundle)}
    assert options["length"] is not None
    memory = options["memory"] * MEGABYTE
    _check_memory(bundle, memory, options, spelling)
    check_spelling(bundle.token_bytes[: bundle.boundary], bundle.tokenizer.unknown)
    [prime_ids], notes = encode_primes(sampler, [prime], options["unknown"], spelling.assignment("unknown", "skip"))
    notes += stop_notes(bundle, options["stop"], spelling)
    has_end = options["stop"] or is_matched(options) or bundle.records
    if not (has_end or options["beam"]) and options["length"] > LONG_TEXT:
        notes.append(
            f"{spelling.assignment('length', options['length'])}: nothing else ends a text, so this may use up its "
            f"memory before any text is proven; {spelling.name('stop')} ends texts earlier, "
            f"{spelling.name('beam')} gives probable texts quickly"
        )
    prime_bytes = b"".join(bundle.token_bytes[int(token)] for token in prime_ids)
    allows_empty = len(prime_ids) > 0 or not bundle.never_empty
    endings, position = _prepare_endings(bundle, prime_bytes, options, spelling, allows_empty=allows_empty)
    search = TextSearch(
        sampler,
        bundle,
        endings,
        prime_ids,
        position,
        count=options["count"],
        temperature=options["temperature"],
        memory=memory,
        beam=options["beam"],
    )
    return Searching(search, notes)


def _default_length(bundle: Bundle) -> int:
    return DEFAULT_SEARCH_LENGTH if bundle.records is None else min(max(1, bundle.records.longest), MAX_SEARCH_LENGTH)


def _prepare_endings(
    bundle: Bundle, prime: bytes, options: SearchArguments, spelling: Spelling, *, allows_empty: bool
) -> tuple[TextEndings, tuple[int, ...]]:
    """Return where texts end, and the position of the empty text behind the prime."""
    stop = StopAutomaton(options["stop"]) if options["stop"] else None
    match = _compile_match(bundle, prime, options, spelling, allows_empty) if is_matched(options) else None
    assert options["length"] is not None
    unknown, boundary = bundle.tokenizer.unknown, bundle.boundary
    endings = TextEndings(
        bundle.token_bytes, unknown, options["length"], stop, match, boundary, allows_empty=allows_empty
    )
    return endings, (0, stop.state_after_prime(prime) if stop else 0, match.start if match else 0, 0)


def _compile_match(
    bundle: Bundle, prime: bytes, options: SearchArguments, spelling: Spelling, allows_empty: bool
) -> MatchAutomaton:
    """Return the automaton of the texts that match; its start is behind the prime where that counts.

    Raises UsageError for an expression that cannot be followed or not within the length, PrimeError for a prime that
    no text which matches continues.
    """
    from gentext.matching.constraints import (  # few requests need them
        check_lengths,
        compile_constraint,
        read_constraints,
    )

    [constraint] = read_constraints(options["match"], options["json_schema"], 1, spelling)
    assert constraint is not None
    primes = [prime if options["match_prime"] else b""]
    automaton = compile_constraint(constraint, bundle, np.zeros(bundle.vocab_size, np.bool_), primes)
    assert options["length"] is not None
    check_lengths(automaton, primes, options["length"], constraint.title, spelling, [allows_empty])
    return automaton


def check_search_options(options: SearchArguments, spelling: Spelling) -> None:
    """Raise UsageError for options that no model can fulfil."""
    check_ranges(options, ranges_of(SearchArguments), spelling)
    check_text_options(options, spelling)
    temperature = options["temperature"]
    is_number = isinstance(temperature, numbers.Real) and not isinstance(temperature, bool)
    if not is_number or not LOWEST_TEMPERATURE <= temperature <= HIGHEST_TEMPERATURE:  # NaN is refused too
        raise UsageError(
            f"{spelling.assignment('temperature', temperature)}: expected a number from {LOWEST_TEMPERATURE:g} to "
            f"{HIGHEST_TEMPERATURE:g}"
        )


def _check_memory(bundle: Bundle, memory: int, options: SearchArguments, spelling: Spelling) -> None:
    """Raise UsageError where a search has no memory for the beginnings that it needs at least."""
    # A beam has two beginnings for each that it keeps: those whose last symbol is read, and those before them.
    required = max(MIN_PREFIXES, 3 * (options["beam"] or 0)) * prefix_bytes(bundle)
    if memory < required:
        purpose = "" if options["beam"] is None else f" for {spelling.assignment('beam', options['beam'])}"
        raise UsageError(
            f"{spelling.assignment('memory', options['memory'])}: expected at least {math.ceil(required / MEGABYTE):,} "
            f"MB{purpose} with this model"
        )
