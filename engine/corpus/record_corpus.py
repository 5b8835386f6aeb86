"""Reads a text as records: those to learn from, and those that are held out, as tokens.

What a record says decides alone where it belongs: its hash does. So equal records stay together, and the same ones are
held out whatever stands before them in the file.
"""

from __future__ import annotations

import array
import dataclasses
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gentext.components.tokenizers import check_tokenizer
from gentext.config import ConfigTable
from gentext.console import progress
from gentext.corpus.novelty import hash_record
from gentext.corpus.split_corpus import ResumedRun, SplitCorpus, build_tokenizer, describe_text, encode_piece
from gentext.corpus.text import read_resumed
from gentext.describe import load_tokenizer
from gentext.errors import CorpusError, refuse_exit
from gentext.exported.boundary import BoundaryTokenizer, RecordsMeta
from gentext.interfaces import Ids, Tokenizer
from gentext.manager import host
from gentext.runs.record_options import RecordOptions
from gentext.runs.resolve import ConfiguredComponent
from gentext.settings import HELD_OUT_LIMIT
from gentext.token_corpus import TokenCorpus

if TYPE_CHECKING:
    from gentext.data.in_memory import InMemoryCorpus
    from gentext.data.record_summary import RecordSummary
    from gentext.data.records import Record, RecordReader
    from gentext.data.stream import CorpusStream

#: Records that are joined for a tokenizer that learns its symbols, and that are encoded between two lines of progress.
BLOCK_RECORDS = 10_000


def read_record_corpus(
    source: str | InMemoryCorpus,
    options: RecordOptions,
    tokenizer: ConfiguredComponent,
    val_frac: float,
    val: str | None,
    resumed: ResumedRun | None,
) -> SplitCorpus:
    """Read records, and turn them into tokens.

    The text is read several times, since it may be larger than memory; what was read once is taken from the cache.
    Raises CorpusError, RunError and PluginError as `gentext.corpus.text.read_text` does, and CorpusError where no
    record is left to learn from or to hold out.

    :param val: the text whose records are held out; None: those of the text whose hash is among the lowest
        ``val_frac`` of all hashes.
    """
    from gentext.data.stream import open_corpus

    held_out = None if val is None else _read_held_out(val, options)
    with open_corpus(source, 1, escape_errors=True) as stream, refuse_exit(f"the tokenizer {tokenizer.name!r}"):
        if resumed:
            read_resumed(stream, resumed)
        else:
            stream.read_through()
        return _SplitRecords(stream, options, val_frac, held_out).to_corpus(tokenizer, resumed)


@dataclasses.dataclass(frozen=True)
class _HeldOutRecords:
    """The records of a text of its own, which are held out."""

    sha256: str
    records: list[Record]


def _read_held_out(source: str, options: RecordOptions) -> _HeldOutRecords:
    from gentext.data.records import RecordReader
    from gentext.data.stream import open_corpus

    with open_corpus(source, 1, escape_errors=True) as stream:
        chosen = _SmallestHashes(HELD_OUT_LIMIT)
        for hash_number, record in _read_counting(RecordReader(stream.name, stream, options), options):
            chosen.add(hash_number, record)
        return _HeldOutRecords(stream.sha256, chosen.records())


def _read_counting(reader: RecordReader, options: RecordOptions) -> Iterator[tuple[int, Record]]:
    """Yield the records that count, with their hashes: of equal ones the first alone where the options say so."""
    known_hashes: set[int] = set()
    for record in reader:
        hash_number = hash_record(record.text)
        if not record.repeats or hash_number in known_hashes:
            continue
        if options.dedup:
            known_hashes.add(hash_number)
        yield hash_number, record


class _SmallestHashes:
    """The records with the smallest hashes, as many as have about ``limit`` characters together."""

    def __init__(self, limit: int) -> None:
        self._limit, self._characters = limit, 0
        #: A heap with the largest hash on top: the negative hash, and the number and the record of each.
        self._heap: list[tuple[int, int, Record]] = []
        self._numbers = itertools.count()

    def add(self, hash_number: int, record: Record) -> None:
        heapq.heappush(self._heap, (-hash_number, next(self._numbers), record))
        self._characters += len(record.text)
        while self._characters > self._limit and len(self._heap) > 1:
            self._characters -= len(heapq.heappop(self._heap)[2].text)

    def records(self) -> list[Record]:
        """Return the records, the smallest hash first; equal ones in the order in which they were added."""
        return [record for _, _, record in sorted(self._heap, key=lambda entry: (-entry[0], entry[1]))]


class _SplitRecords:
    """The records of a text, each of which is to learn from or held out."""

    def __init__(
        self, stream: CorpusStream, options: RecordOptions, val_frac: float, held_out: _HeldOutRecords | None
    ) -> None:
        from gentext.data.records import RecordReader

        self._stream, self._options, self._val_frac, self._held_out = stream, options, val_frac, held_out
        self._reader = RecordReader(stream.name, stream, options)
        #: The records with smaller hashes are held out.
        self._held_out_limit = 0 if held_out else round(val_frac * 2**64)

    def to_corpus(self, component: ConfiguredComponent, resumed: ResumedRun | None) -> SplitCorpus:
        """Return the records as tokens, from the cache where they were read before."""
        from gentext.data.record_summary import load_summary, save_summary

        key = self._key(component)
        learned = load_tokenizer(*resumed.run.read_tokenizer()) if resumed else None
        summary = load_summary(key)
        if summary is None or (learned and summary.tokenizer_state != learned.state()):
            summary = self._scan()
            learned = learned or build_tokenizer(component, _Chunks(self._read_train, summary.val_texts))
            check_tokenizer(component.name, learned)
            summary = dataclasses.replace(summary, tokenizer_state=learned.state())
            save_summary(key, summary)
        elif learned is None:
            learned = load_tokenizer(component.name, summary.tokenizer_state)
        return self._encode(component.name, BoundaryTokenizer(learned), summary, key)

    def _key(self, component: ConfiguredComponent) -> list[Any]:
        """Return everything that the split and its tokens depend on, as JSON data."""
        distribution = str(host().registry.find("tokenizer", component.name).distribution)
        val = self._held_out.sha256 if self._held_out else self._val_frac
        return [self._stream.sha256, dataclasses.asdict(self._options), val, distribution, component.to_table()]

    def _read(self) -> Iterator[tuple[int, Record]]:
        """Yield all records that count, with their hashes."""
        return _read_counting(self._reader, self._options)

    def _read_train(self) -> Iterator[str]:
        """Yield the records to learn from, in their order."""
        return (record.text for hash_number, record in self._read() if hash_number >= self._held_out_limit)

    def _scan(self) -> RecordSummary:
        """Read all records, and return what must be known of them before they become tokens."""
        from gentext.data.record_summary import RecordSummary

        hashes, repeats = array.array("Q"), array.array("q")
        held_out = _SmallestHashes(HELD_OUT_LIMIT)
        characters = longest = 0
        first_text = ""
        with progress(f"cutting {self._stream.name} into records", self._stream.characters, "characters") as bar:
            for hash_number, record in self._read():
                bar.advance(len(record.text) + 1)
                if hash_number < self._held_out_limit:
                    held_out.add(hash_number, record)
                    continue
                hashes.append(hash_number)
                repeats.append(record.repeats)
                characters += len(record.text)
                longest = max(longest, len(record.text))
                first_text = first_text or record.text
        val_records = self._held_out.records if self._held_out else held_out.records()
        self._check_counts(len(hashes), len(val_records))
        return RecordSummary(
            header=self._reader.header,
            longest=longest,
            characters=characters,
            broken=self._reader.broken,
            first_text=first_text,
            hashes=np.unique(np.array(hashes, np.uint64)),
            repeats=self._weights(repeats),
            val_texts=[record.text for record in val_records],
            val_repeats=self._weights(record.repeats for record in val_records),
        )

    def _weights(self, repeats: Iterable[int]) -> NDArray[np.int64] | None:
        return np.array(list(repeats), np.int64) if self._options.weight else None

    def _check_counts(self, train_count: int, val_count: int) -> None:
        """Raise CorpusError where no record is left to learn from, or to hold out."""
        if train_count and (val_count or (not self._val_frac and not self._held_out)):
            return
        rule = "val" if self._held_out else f"val_frac = {self._val_frac:g}, by the hash of each"
        raise CorpusError(
            f"{self._stream.name}: {train_count} records to learn from and {val_count} held out ({rule}); give a file "
            f"of records to hold out as val, or another share as val_frac, where 0 holds out none"
        )

    def _encode(self, name: str, tokenizer: BoundaryTokenizer, summary: RecordSummary, key: list[Any]) -> SplitCorpus:
        """Turn the records into tokens; ``name`` is that of the tokenizer."""
        from gentext.data.encoded import EncodingKey, encode_cached

        encoder = _Encoder(name, tokenizer, self._stream.name)
        blocks = _EncodedBlocks(encoder, self._read_train, summary.characters)
        first_ids = encoder.encode([summary.first_text])
        encoding_key = EncodingKey(["records", *key, tokenizer.state()], tokenizer.vocab_size, first_ids)
        encoded = encode_cached(encoding_key, blocks)
        train = TokenCorpus.of_records(encoded.ids, tokenizer.boundary, summary.repeats)
        val = TokenCorpus.of_records(encoder.encode(summary.val_texts), tokenizer.boundary, summary.val_repeats)
        counts = encoded.counts if summary.repeats is None else _count_symbols(train, tokenizer.vocab_size)
        return SplitCorpus(
            tokenizer,
            train,
            val,
            counts,
            summary.characters,
            summary.val_texts,
            self._describe(summary),
            RecordsMeta(tokenizer.boundary, summary.longest, self._options.layout, summary.header, never_empty=True),
            summary.hashes,
        )

    def _describe(self, summary: RecordSummary) -> ConfigTable:
        """Return the table ``[corpus]``, from which a run that is resumed reads the records again."""
        options = self._options
        table: ConfigTable = {**describe_text(self._stream), "records": options.layout}
        table |= {name: True for name in ("dedup", "skip_bad") if getattr(options, name)}
        return table | ({"weight": options.weight} if options.weight else {})


class _Chunks:
    """Records joined to larger texts, for a tokenizer that learns their symbols, read anew for each iteration."""

    def __init__(self, read_train: Callable[[], Iterable[str]], held_out: list[str]) -> None:
        self._read_train, self._held_out = read_train, held_out

    def __iter__(self) -> Iterator[str]:
        for block in _batched(itertools.chain(self._read_train(), self._held_out), BLOCK_RECORDS):
            yield "".join(block)


class _Encoder:
    """Turns records into tokens, with the boundary behind each of them."""

    def __init__(self, name: str, tokenizer: BoundaryTokenizer, corpus_name: str) -> None:
        self._name, self._tokenizer, self._corpus_name = name, tokenizer, corpus_name

    def encode(self, texts: list[str]) -> Ids:
        """Return the tokens of records, one behind another; see `encode_piece`."""
        inner: Tokenizer = self._tokenizer.inner
        end = np.array([self._tokenizer.boundary])
        parts: list[Ids] = [np.empty(0, np.int64)]
        for text in texts:
            parts += encode_piece(inner, self._name, text, self._corpus_name, 0), end
        return np.concatenate(parts)


class _EncodedBlocks:
    """The tokens of the records to learn from, block by block, read anew for each iteration."""

    def __init__(self, encoder: _Encoder, read_train: Callable[[], Iterable[str]], characters: int) -> None:
        self._encoder, self._read_train, self._characters = encoder, read_train, characters

    def __iter__(self) -> Iterator[Ids]:
        with progress("encoding the records", self._characters, "characters") as bar:
            for block in _batched(self._read_train(), BLOCK_RECORDS):
                yield self._encoder.encode(block)
                bar.advance(sum(map(len, block)))


def _count_symbols(corpus: TokenCorpus, vocab_size: int) -> NDArray[np.int64]:
    """Return how often each symbol is predicted in a pass over records that count more than once: int64 [V]."""
    assert corpus.offsets is not None and corpus.repeats is not None
    counts = np.zeros(vocab_size)
    for first in range(0, corpus.records, BLOCK_RECORDS):
        block = slice(first, first + BLOCK_RECORDS)
        begin, end = corpus.offsets[first], corpus.offsets[min(block.stop, corpus.records)]
        weights = np.repeat(corpus.repeats[block], corpus.lengths[block])
        counts += np.bincount(corpus.tokens[begin:end], weights, vocab_size)
    return counts.astype(np.int64)


def _batched(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield lists of so many texts; the last one may be shorter."""
    remaining = iter(texts)
    while block := list(itertools.islice(remaining, size)):
        yield block
