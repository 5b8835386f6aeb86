"""Which records of a seed are written, and what throws some of them away."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from re import Pattern
from typing import NamedTuple, Protocol

from gentext.corpus.novelty import KnownRecords
from gentext.interfaces import Finish

#: The stream of a record's try is its number, plus this for each try before. So no two tries have the same stream.
TRY_STREAMS = 2**40
#: Records at most, so that their numbers are below TRY_STREAMS; tries of each at most, so that streams have 64 bits.
MAX_RECORDS, MAX_TRIES = 2**40, 2**24


class WrittenRecord(NamedTuple):
    """One record that a model has written, with what is needed to write it again."""

    number: int
    """Its number among all records of the seed."""
    text: str
    """All of it, with its prefix."""
    logprob: float
    """Natural logarithm of the probability of what follows the prefix, and of its end, as the model gives it before the
    chain."""
    seed: int
    stream: int
    """The seed and the stream of random numbers that write it again; see `TRY_STREAMS`."""
    prefix: str
    finish: Finish
    """``end``."""
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    """The id of each symbol behind the prefix, the end among them, and its log-probability; empty if nobody asked."""


class RecordFilter(Protocol):
    """A filter with its name: `gentext.components.filters.CheckedFilter`, or `TableRows`."""

    name: str

    def __call__(self, texts: Sequence[str]) -> Sequence[bool]:
        """Return for each of some records whether it may stay."""
        ...


@dataclasses.dataclass(frozen=True)
class RecordPlan:
    """Which records to write, and which of them are thrown away."""

    count: int
    """All records of the seed."""
    count_per_prefix: int
    prefixes: Sequence[str]
    seed: int
    length: int
    """Characters behind the prefix, at most."""
    shard: tuple[int, int] = (0, 1)
    """(i, n): the numbers that are i modulo n."""
    ordered: bool = True
    unique: bool = False
    training: KnownRecords | None = None
    """The records that the model has learned from, of which none is written; None: any."""
    accept: Pattern[str] | None = None
    """What whole records must match."""
    filters: Sequence[RecordFilter] = ()
    max_tries: int = 1000
    max_tries_option: str = "max_tries"
    """How messages spell that."""

    @property
    def numbers(self) -> range:
        """The numbers of the records to write."""
        return range(self.shard[0], self.count, self.shard[1])
