"""Writes records of a model of records: whole, in the order of their numbers, and new and different where asked for."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

from gentext import console
from gentext.arrow import TableIterator
from gentext.corpus.novelty import HashSet, hash_record, hash_records
from gentext.errors import GenError
from gentext.records.record_plan import TRY_STREAMS, RecordPlan, WrittenRecord
from gentext.records.record_rows import DrawnRecord, RecordTry

if TYPE_CHECKING:
    from gentext.console import Bar

#: Records that were drawn, or are being drawn, while one before them is not decided: a multiple of the rows, at most.
WAITING_ROWS = 16

#: Why a record was thrown away.
CUT, MASKED, REFUSED, NOT_NEW, REPEATED = "cut", "masked", "refused by accept", "not new", "repeated"


class RecordSource(Protocol):
    """Draws records: `gentext.records.record_rows.RecordRows`, or `gentext.records.record_batches.RecordBatches`."""

    count: int
    """Records side by side."""

    @property
    def busy(self) -> int:
        """How many are under way."""
        ...

    def advance(self, sources: Sequence[RecordTry]) -> list[DrawnRecord]:
        """Begin records, at most as many as are not under way, go on with all, and return those that have ended."""
        ...


class RecordStream(TableIterator[WrittenRecord]):
    """The records of a plan, drawn while they are iterated over.

    A record that is thrown away is drawn again from the next stream of its number. Whether it is thrown away depends on
    itself and on the records with lower numbers alone: of equal ones the lowest number stays. So neither the rows nor
    their schedule change what is written.
    """

    COLUMNS: ClassVar[Mapping[str, str]] = {
        "number": "int64",
        "text": "string",
        "logprob": "float64",
        "seed": "int64",
        "stream": "uint64",
    }

    def __init__(self, plan: RecordPlan, source: RecordSource, window: int) -> None:
        """``window`` is how many records may wait for one before them; at least as many as there are rows."""
        self.plan = plan
        self.thrown_away: collections.Counter[str] = collections.Counter()
        """How many records were thrown away, by the reason."""
        self.add_messages: Callable[[Iterable[str]], None] | None = None
        """Gets the lines that would be printed on stderr; None: they are printed."""
        self.bar: Bar | None = None
        """Counts the records that are written."""
        self._source, self._window = source, window
        self._numbers = plan.numbers
        self._next_new = self._next_written = 0
        """Places in ``_numbers``: of the next record to draw for the first time, and of the next one to write."""
        self._retries: collections.deque[RecordTry] = collections.deque()
        """Records to draw once more."""
        self._waiting: dict[int, DrawnRecord] = {}
        """Records that stay unless one before them is equal, by place."""
        self._place_by_hash: dict[int, int] = {}
        """The lowest place of the records that wait with that hash."""
        self._hash_by_place: dict[int, int] = {}
        self._written_hashes = HashSet()
        self._reasons: dict[int, collections.Counter[str]] = {}
        """Why records were thrown away, by their place, until one is written there."""
        self._failed: int | None = None
        """The lowest place in which all tries were thrown away."""
        self._records = self._write()

    @property
    def written(self) -> int:
        """How many records are written, with those of `skip`."""
        return self._next_written

    @property
    def total(self) -> int:
        """How many records are to be written."""
        return len(self._numbers)

    def skip(self, records: Iterable[bytes], parse: Callable[[bytes], str]) -> None:
        """Go on behind the first records, which were written before; ``parse`` returns the text of one."""
        for record in records:
            if self.plan.unique:
                self._written_hashes.add(hash_record(parse(record)))
            self._next_new += 1
        self._next_written = self._next_new

    def __next__(self) -> WrittenRecord:
        if self.add_messages is None:
            return next(self._records)
        with console.quiet() as messages:
            record = next(self._records)
        self.add_messages(messages)
        return record

    def _write(self) -> Iterator[WrittenRecord]:
        while True:
            sources = self._choose(self._source.count - self._source.busy)
            if not sources and not self._source.busy:
                break
            self._sift(self._source.advance(sources))
            yield from self._release()
            if self.bar is not None:
                self.bar.advance(self.written - self.bar.done, describe_counts(self.thrown_away))
        if self._failed is not None:
            raise self._exhausted(self._failed)

    def _choose(self, count: int) -> list[RecordTry]:
        """Return the records to draw next, at most so many; none where none can begin now."""
        sources: list[RecordTry] = []
        while self._retries and len(sources) < count:
            source = self._retries.popleft()
            if self._failed is None or source.place < self._failed:
                sources.append(source)
        if self._failed is not None:
            return sources
        begin, end = self._next_new, min(self._next_new + count - len(sources), len(self._numbers))
        if self.plan.ordered:
            end = min(end, self._next_written + self._window)
        sources += [self._make_try(place, 0) for place in range(begin, end)]
        self._next_new = max(begin, end)
        return sources

    def _make_try(self, place: int, attempt: int) -> RecordTry:
        number, plan = self._numbers[place], self.plan
        stream = number + attempt * TRY_STREAMS
        return RecordTry(place, attempt, plan.seed, stream, number // plan.count_per_prefix)

    def _release(self) -> Iterator[WrittenRecord]:
        """Yield the records that are decided, in order."""
        waiting, plan = self._waiting, self.plan
        while waiting and (not plan.ordered or self._next_written in waiting):
            place = self._next_written if plan.ordered else next(iter(waiting))
            record = waiting.pop(place)
            if plan.unique:
                record_hash = self._hash_by_place.pop(place)
                del self._place_by_hash[record_hash]
                self._written_hashes.add(record_hash)
            self._reasons.pop(place, None)
            self._next_written += 1
            source, prefix = record.source, plan.prefixes[record.source.prefix]
            yield WrittenRecord(
                self._numbers[place],
                prefix + record.text,
                record.logprob,
                source.seed,
                source.stream,
                prefix,
                record.finish,
                record.tokens,
                record.logprobs,
            )

    def _sift(self, drawn: list[DrawnRecord]) -> None:
        """Have the records that stay wait until they are written, and the others drawn again."""
        plan, staying = self.plan, []
        for record in drawn:
            if record.finish == "end" and len(record.text) <= plan.length:
                staying.append(record)
            else:
                self._throw_away(record.source, MASKED if record.finish == "masked" else CUT)
        texts = [plan.prefixes[record.source.prefix] + record.text for record in staying]
        if (pattern := plan.accept) is not None:
            staying, texts = self._select(
                staying, texts, [pattern.fullmatch(text) is not None for text in texts], REFUSED
            )
        for record_filter in plan.filters:
            if texts:
                staying, texts = self._select(staying, texts, record_filter(texts), f"refused by {record_filter.name}")
        if plan.training is not None:
            is_new = (~plan.training.contain(texts)).tolist()
            staying, texts = self._select(staying, texts, is_new, NOT_NEW)
        if plan.unique:
            self._sift_equal(staying, texts)
        else:
            self._waiting |= {record.source.place: record for record in staying}

    def _sift_equal(self, records: list[DrawnRecord], texts: list[str]) -> None:
        """Have the records wait that no record with a lower number equals, as far as that is decided.

        One that waits may lose its place to a lower number that is drawn later. It need never come back: from then on
        the text stays with a lower number. So the order in which records end does not matter.
        """
        hashes = hash_records(texts)
        was_written = self._written_hashes.contain(hashes).tolist()
        for record, record_hash, is_written in zip(records, hashes.tolist(), was_written, strict=True):
            place = record.source.place
            other = self._place_by_hash.get(record_hash)
            if is_written or (other is not None and other < place):
                self._throw_away(record.source, REPEATED)
                continue
            if other is not None:
                del self._hash_by_place[other]
                self._throw_away(self._waiting.pop(other).source, REPEATED)
            self._place_by_hash[record_hash] = place
            self._hash_by_place[place] = record_hash
            self._waiting[place] = record

    def _select(
        self, records: list[DrawnRecord], texts: list[str], answers: Sequence[bool], why: str
    ) -> tuple[list[DrawnRecord], list[str]]:
        """Return the records whose answer is true, with their texts; the others are thrown away."""
        if all(answers):
            return records, texts
        for record, answer in zip(records, answers, strict=True):
            if not answer:
                self._throw_away(record.source, why)
        return list(itertools.compress(records, answers)), list(itertools.compress(texts, answers))

    def _throw_away(self, source: RecordTry, why: str) -> None:
        """Count a record that is thrown away, and have its number drawn again, unless all of its tries are used."""
        self.thrown_away[why] += 1
        self._reasons.setdefault(source.place, collections.Counter())[why] += 1
        attempt = source.attempt + 1
        if attempt < self.plan.max_tries:
            self._retries.append(self._make_try(source.place, attempt))
        elif self._failed is None or source.place < self._failed:
            self._failed = source.place

    def _exhausted(self, place: int) -> GenError:
        """Return the error for a number whose tries were all thrown away."""
        reasons = describe_counts(self._reasons[place])
        return GenError(
            f"record {self._numbers[place]:,}: all of its {self.plan.max_tries:,} tries were thrown away ({reasons}); "
            f"{self.written:,} of {self.total:,} records are written. The model may have no other ones; more tries: "
            f"{self.plan.max_tries_option}"
        )


def describe_counts(counts: Mapping[str, int]) -> str:
    """Return how many records were thrown away for each reason, in words."""
    return ", ".join(f"{count:,} {why}" for why, count in sorted(counts.items()))
