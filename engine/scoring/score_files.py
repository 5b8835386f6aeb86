"""The rows of ``gen score``: what one model, or two, think of the records of files, or of files as streams."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

from gentext.console import progress, warn
from gentext.errors import CorpusError, UsageError
from gentext.exported.metadata import readable_symbol
from gentext.files.file_names import readable_name
from gentext.interfaces import OpenSampler
from gentext.requests.spelling import Spelling
from gentext.runs.record_options import RecordOptions
from gentext.scoring.record_scores import EncodedText, TextScore, TextScorer, score_texts
from gentext.scoring.score import TextReader
from gentext.scoring.unknown_characters import UnknownCharacters

#: A row: the name of a column -> a number or a text.
Row = dict[str, Any]
#: Records that are left out whose reason is shown.
SHOWN_BAD = 3
#: Rows that are made at a time.
BLOCK_ROWS = 1 << 14


@dataclasses.dataclass(frozen=True)
class ScoreOptions:
    """What is scored, and what the rows have."""

    layout: str | None = None
    """How records lie in the files, as ``--records`` has it; None: as the model learned them, or each file is a text.
    """
    by_symbol: bool = False
    """A row for each symbol, in place of one for each record or text."""
    has_text: bool = True
    """Whether the row of a record has its text."""
    skip_bad: bool = False
    """Leave out records that cannot be scored, and count them."""
    unknown: str = "error"
    """The policy of `gentext.scoring.unknown_characters.UnknownCharacters`."""


class Scoring:
    """The scores of files by one model, or by two of which the second is compared.

    Where unknown characters are left out, what either model does not know is left out for both.
    Raises UsageError for an impossible option, and for options that do not fit the models.
    """

    def __init__(
        self, samplers: Sequence[OpenSampler], options: ScoreOptions, spelling: Spelling, workers: int = 0
    ) -> None:
        self.options = options
        self._samplers, self._workers = samplers, workers
        bundles = [sampler.bundle for sampler in samplers]
        first = bundles[0]
        layout = options.layout or (first.records.layout if first.records else None)
        self._records = None if layout is None else RecordOptions(layout, skip_bad=options.skip_bad)
        if self._records is None and options.skip_bad:
            raise UsageError("--skip-bad is for records: say with --records how they lie in the file")
        if self._records is None and any(bundle.records for bundle in bundles):
            raise UsageError(
                "--against: a model of records cannot score a text as one stream; say with --records how records lie "
                "in the files"
            )
        if options.by_symbol and any(bundle.token_bytes != first.token_bytes for bundle in bundles):
            raise UsageError(
                "--symbols with --against: the two models have different symbols, so the log-probabilities of single "
                "symbols cannot be compared; leave out --symbols"
            )
        self._names = [readable_symbol(symbol) for symbol in first.token_bytes]
        self._unknown = [UnknownCharacters(bundles, options.unknown, spelling) for _ in bundles]

    @property
    def columns(self) -> dict[str, type]:
        """The columns of the rows, and what each holds."""
        columns: dict[str, type] = {"number": int}
        if self._records is not None:
            columns["line"] = int
        columns |= {"position": int, "symbol": str} if self.options.by_symbol else {"symbols": int}
        columns["logprob"] = float
        if len(self._samplers) == 2:
            columns |= {"logprob_against": float, "ratio": float}
        columns["bits"] = float
        if self._records is None:
            columns["file"] = str
        elif self.options.has_text and not self.options.by_symbol:
            columns["text"] = str
        return columns

    def rows(self, sources: Sequence[str]) -> Iterator[list[Row]]:
        """Yield the rows of files, ``-`` for standard input, many at a time; a bar on stderr shows how far they are.

        Raises CorpusError for a text that cannot be read or scored, after the rows of all records before it.
        """
        return self._stream_rows(sources) if self._records is None else self._record_rows(sources, self._records)

    def _stream_rows(self, sources: Sequence[str]) -> Iterator[list[Row]]:
        """Score each file as one text."""
        from gentext.data.corpus import iter_text
        from gentext.data.stream import PIECE_SIZE, cut_pieces

        for number, source in enumerate(sources):
            name, file_column = _shown_name(source), {"file": readable_name(source)}
            pieces = itertools.tee(cut_pieces(iter_text(source), PIECE_SIZE), len(self._samplers))
            readers = [
                TextReader(sampler, text, name, unknown)
                for sampler, text, unknown in zip(self._samplers, pieces, self._unknown, strict=True)
            ]
            size = _total_size([source])
            position = 0
            for windows in itertools.zip_longest(*(reader.windows(size) for reader in readers)):
                if self.options.by_symbol:
                    tokens = windows[0][0].tolist()
                    logprobs = [(-losses).tolist() for _, losses in windows]
                    yield self._symbol_rows({"number": number}, position, tokens, logprobs, file_column)
                    position += len(tokens)
            losses = [reader.loss() for reader in readers]
            if not self.options.by_symbol:
                figures = self._figures([-loss.nats for loss in losses])
                yield [{"number": number, "symbols": losses[0].symbol_count} | figures | file_column]
            self._unknown[0].report(name)

    def _record_rows(self, sources: Sequence[str], layout: RecordOptions) -> Iterator[list[Row]]:
        """Score each record from a fresh state."""
        scorers = [TextScorer(*pair) for pair in zip(self._samplers, self._unknown, strict=True)]
        with progress("scoring", None, "symbols") as bar:
            reader = _RecordEncoder(sources, layout, scorers)
            number = 0
            for window in score_texts(scorers, reader.records(), self._workers):
                bar.advance(sum(len(scores[0].tokens) for _, scores in window))
                bar.total = reader.total_symbols(bar.done)
                yield from self._window_rows(number, window)
                number += len(window)
        if reader.bad:
            warn(f"{reader.bad:,} records with characters that the model does not know were left out")

    def _window_rows(self, number: int, window: Sequence[tuple[int, list[TextScore]]]) -> Iterator[list[Row]]:
        """Yield the rows of records, the first of which has a number, with the line of each."""
        rows: list[Row] = []
        for record_number, (line, scores) in enumerate(window, number):
            keys = {"number": record_number, "line": line}
            if self.options.by_symbol:
                logprobs = [score.logprobs.tolist() for score in scores]
                rows += self._symbol_rows(keys, 0, scores[0].tokens.tolist(), logprobs, {})
            else:
                figures = self._figures([score.logprob for score in scores])
                text = {"text": scores[0].text} if self.options.has_text else {}
                rows.append(keys | {"symbols": len(scores[0].tokens)} | figures | text)
            if len(rows) >= BLOCK_ROWS:
                yield rows
                rows = []
        yield rows

    def _symbol_rows(
        self, keys: Row, position: int, tokens: Sequence[int], logprobs: Sequence[Sequence[float]], file_column: Row
    ) -> list[Row]:
        """Return a row for each symbol of a text; ``logprobs`` has those by each model."""
        return [
            keys | {"position": place, "symbol": self._names[token]} | self._figures(symbol_logprobs) | file_column
            for place, (token, *symbol_logprobs) in enumerate(zip(tokens, *logprobs, strict=True), position)
        ]

    def _figures(self, logprobs: Sequence[float]) -> Row:
        """Return the columns about a text or a symbol, from its log-probability by each model."""
        figures = {"logprob": logprobs[0]}
        if len(logprobs) == 2:
            figures |= {"logprob_against": logprobs[1], "ratio": logprobs[0] - logprobs[1]}
        return figures | {"bits": abs(logprobs[0]) / math.log(2)}


class _RecordEncoder:
    """Reads the records of files, and encodes them for some models."""

    def __init__(self, sources: Sequence[str], layout: RecordOptions, scorers: Sequence[TextScorer]) -> None:
        self.bad = 0
        """How many records were left out because of unknown characters."""
        self._sources, self._layout, self._scorers = sources, layout, scorers
        self._size, self._bytes_read = _total_size(sources), 0

    def records(self) -> Iterator[EncodedText[int]]:
        """Yield the records, each with the line of its file. Raises CorpusError for the first that cannot be scored."""
        from gentext.data.records import RecordReader

        for source in self._sources:
            name = _shown_name(source)
            for record in RecordReader(name, self._count_bytes(source), self._layout):
                try:
                    tokens = [scorer.encode(record.text) for scorer in self._scorers]
                except CorpusError as error:
                    self._leave_out(f"{name}, line {record.line:,}", error)
                    continue
                yield EncodedText(record.line, record.text, tokens)
            self._scorers[0].unknown.report(name)

    def _count_bytes(self, source: str) -> Iterator[str]:
        from gentext.data.corpus import iter_text
        from gentext.data.decoding import encode_text

        for piece in iter_text(source, escape_errors=True):
            yield piece
            self._bytes_read += len(encode_text(piece))

    def total_symbols(self, symbols: float) -> float | None:
        """Estimate how many symbols all files have, from those that were scored; None where their size is unknown."""
        return self._size * symbols / self._bytes_read if self._size and self._bytes_read else None

    def _leave_out(self, place: str, problem: CorpusError) -> None:
        if not self._layout.skip_bad:
            raise CorpusError(f"{place}: {problem}. --skip-bad leaves such records out and counts them") from None
        self.bad += 1
        if self.bad <= SHOWN_BAD:
            warn(f"{place}: left out: {problem}")


def _shown_name(source: str) -> str:
    return "standard input" if source == "-" else source


def _total_size(sources: Sequence[str]) -> int | None:
    """Return the bytes of files; None where one is no file, or compressed."""
    if not all(os.path.isfile(source) and not source.endswith(".gz") for source in sources):
        return None
    return sum(map(os.path.getsize, sources))
