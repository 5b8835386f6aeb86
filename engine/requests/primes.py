"""The primes of a request as ids, and what to do about characters that the model does not know."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gentext.components.tokenizers import check_ids
from gentext.describe import tokenizer_of
from gentext.errors import PrimeError, refuse_exit
from gentext.interfaces import Ids, OpenSampler, Tokenizer

if TYPE_CHECKING:  # most requests have none
    pass


def leave_out(text: str, positions: Sequence[int]) -> str:
    """Return a text without the characters at these positions."""
    is_kept = np.ones(len(text), np.bool_)
    is_kept[list(positions)] = False
    return "".join(itertools.compress(text, is_kept))


def encode_prime(
    tokenizer: Tokenizer, text: str, policy: str, skip_option: str = "unknown = 'skip'"
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
        known_text = leave_out(text, unknown_positions)
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
