"""Cuts a text into records: lines, blocks between empty lines, or fields of JSON lines and of CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gentext.console import warn
from gentext.errors import CorpusError, nearest
from gentext.runs.record_options import RecordOptions

#: Lines that are counted as broken before the first of them is shown.
SHOWN_BROKEN = 3
#: The delimiters of CSV that are looked for in a header, the likeliest first.
DELIMITERS = (",", "\t", ";")
#: The largest number of times that a record may count, and the largest field of CSV, in characters.
MAX_REPEATS, MAX_FIELD = 10**9, 2**27
#: What stands in a text for a byte that is not UTF-8: see `gentext.data.decoding.decode_text`.
_BROKEN_BYTE = re.compile("[\udc80-\udcff]")


@dataclasses.dataclass(frozen=True)
class Record:
    """One record of a corpus."""

    text: str
    repeats: int = 1
    """How many times it counts."""
    line: int = dataclasses.field(default=0, compare=False)
    """The line on which it begins, from 1; of a row of CSV, that on which it ends."""


class _BrokenRecordError(Exception):
    """A line that holds no record as the layout has it; the message is the reason."""


class RecordReader:
    """Iterates over the records of a text. `header` and `broken` are known when that has ended."""

    def __init__(self, name: str, pieces: Iterable[str], options: RecordOptions) -> None:
        """``name`` stands for the text in messages; ``pieces`` are the text, cut anywhere, its errors escaped."""
        self.header = ""
        """The first line of CSV whose whole rows are records; empty for other layouts."""
        self.broken = 0
        """How many broken records were left out."""
        self._name, self._pieces, self._options = name, pieces, options
        self._was_read = False

    def __iter__(self) -> Iterator[Record]:
        self.broken = 0
        readers: dict[str, Callable[[], Iterator[Record]]] = {
            "lines": self._read_lines,
            "blank": self._read_blocks,
            "sep": self._read_separated,
            "jsonl": self._read_json,
            "csv": self._read_csv,
        }
        is_empty = True
        for record in readers[self._options.kind]():
            is_empty = False
            yield record
        if self.broken and not self._was_read:
            warn(f"{self._name}: {self.broken:,} broken records were left out")
        if is_empty:
            raise CorpusError(f"{self._name}: no records; expected some in the layout {self._options.layout}")
        self._was_read = True

    def _read_lines(self) -> Iterator[Record]:
        for number, line in enumerate(read_lines(self._pieces), 1):
            if line and self._has_text(line, number):
                yield Record(line, line=number)

    def _read_blocks(self) -> Iterator[Record]:
        return self._join_between("")

    def _read_separated(self) -> Iterator[Record]:
        separator_count = 0

        def count(line: str) -> str:
            nonlocal separator_count
            separator_count += line == self._options.argument
            return line

        yield from self._join_between(self._options.argument, count)
        if not separator_count:
            raise CorpusError(
                f"{self._name}: no line is {self._options.argument!r}, so all of it is one record; "
                f"name the line between two records with the layout sep:TEXT"
            )

    def _join_between(self, separator: str, observe: Callable[[str], str] = str) -> Iterator[Record]:
        """Yield the lines between those that are the separator, joined."""
        lines: list[str] = []
        for number, line in enumerate(itertools.chain(map(observe, read_lines(self._pieces)), [separator]), 1):
            if line != separator:
                lines.append(line)
                continue
            first = number - len(lines)
            text = "\n".join(lines).strip("\n")
            if text and all(map(self._has_text, lines, itertools.count(first))):
                yield Record(text, line=first)
            lines = []

    def _read_json(self) -> Iterator[Record]:
        for number, line in enumerate(read_lines(self._pieces), 1):
            if not line.strip() or not self._has_text(line, number):
                continue
            try:
                yield self._parse_json(line, number)
            except _BrokenRecordError as error:
                self._count_broken(number, error)

    def _parse_json(self, line: str, number: int) -> Record:
        options = self._options
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _BrokenRecordError(f"no JSON ({error})") from None
        if not isinstance(fields, dict):
            raise _BrokenRecordError("expected a JSON object")
        text = self._take_field(fields, options.argument)
        if not isinstance(text, str):
            raise _BrokenRecordError(f"its {options.argument!r} is no text")
        if not text:
            raise _BrokenRecordError(f"its {options.argument!r} is empty")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _BrokenRecordError(f"its {options.argument!r} escapes half a surrogate pair, no character") from None
        return Record(text, self._parse_weight(fields), number)

    def _take_field(self, fields: dict[str, Any], name: str) -> Any:
        if name not in fields:
            raise _BrokenRecordError(f"it has no field {name!r}.{nearest(name, fields)} Fields: {', '.join(fields)}")
        return fields[name]

    def _parse_weight(self, fields: dict[str, Any]) -> int:
        """Return how many times a record counts."""
        name = self._options.weight
        if not name:
            return 1
        weight = self._take_field(fields, name)
        try:
            repeats = int(weight) if isinstance(weight, str | int) and not isinstance(weight, bool) else -1
        except ValueError:
            repeats = -1
        if not 0 <= repeats <= MAX_REPEATS:
            raise _BrokenRecordError(
                f"its weight {name!r} is {weight!r}; expected how many times it counts, a whole number from 0"
            )
        return repeats

    def _read_csv(self) -> Iterator[Record]:
        csv.field_size_limit(min(MAX_FIELD, sys.maxsize))
        lines = (line + "\n" for line in read_lines(self._pieces))
        first_line = next(lines, "")
        delimiter = next((mark for mark in DELIMITERS if mark in first_line), DELIMITERS[0])
        rows = csv.reader(itertools.chain([first_line], lines), delimiter=delimiter, strict=True)
        header = self._next_row(rows) or []
        if problem := _find_broken_byte(first_line):
            raise CorpusError(f"{self._name}, line 1: {problem}")
        for column in filter(None, (self._options.argument, self._options.weight)):
            if column not in header:
                raise CorpusError(
                    f"{self._name}: no column {column!r}.{nearest(column, header)} Columns: {', '.join(header)}"
                )
        if not self._options.argument:
            self.header = format_row(header, delimiter)
        while (row := self._next_row(rows)) is not None:
            if not row:
                continue
            try:
                yield self._parse_row(row, header, delimiter, rows.line_num)
            except _BrokenRecordError as error:
                self._count_broken(rows.line_num, error)

    def _next_row(self, rows: Any) -> list[str] | None:
        """Return the next row; None at the end. A row that csv cannot read counts as broken."""
        while True:
            try:
                row: list[str] | None = next(rows, None)
                return row
            except csv.Error as error:
                self._count_broken(rows.line_num, _BrokenRecordError(str(error)))

    def _parse_row(self, row: list[str], header: list[str], delimiter: str, number: int) -> Record:
        if len(row) != len(header):
            raise _BrokenRecordError(f"{len(row)} fields; the header has {len(header)}")
        if problem := _find_broken_byte("".join(row)):
            raise _BrokenRecordError(problem)
        fields = dict(zip(header, row, strict=True))
        argument = self._options.argument
        text = fields[argument] if argument else format_row(row, delimiter)
        if not text:
            raise _BrokenRecordError(f"its {argument!r} is empty")
        return Record(text, self._parse_weight(fields), number)

    def _has_text(self, line: str, number: int) -> bool:
        """Return whether a line is text; one that is not counts as broken, or raises CorpusError."""
        problem = _find_broken_byte(line)
        if problem:
            self._count_broken(number, _BrokenRecordError(problem))
        return not problem

    def _count_broken(self, line: int, error: _BrokenRecordError) -> None:
        """Count a broken record, or raise CorpusError for it."""
        if not self._options.skip_bad:
            raise CorpusError(
                f"{self._name}, line {line:,}: {error}. skip_bad leaves broken records out and counts them"
            ) from None
        self.broken += 1
        if self.broken <= SHOWN_BROKEN and not self._was_read:
            warn(f"{self._name}, line {line:,}: left out: {error}")


def _find_broken_byte(text: str) -> str:
    """Return what is wrong with the first byte that is no text, in words; empty for a text."""
    broken = None if text.isascii() else _BROKEN_BYTE.search(text)
    if broken is None:
        return ""
    return f"not UTF-8 (0x{ord(broken[0]) - 0xDC00:02x}); convert it, for example: iconv -f WINDOWS-1252 -t UTF-8"


def read_lines(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a text, without their ends, which are LF. The last line may lack one."""
    beginning: list[str] = []
    for piece in pieces:
        *lines, unfinished_line = piece.split("\n")
        if lines:
            beginning.append(lines[0])
            yield "".join(beginning)
            yield from lines[1:]
            beginning = []
        beginning.append(unfinished_line)
    if last_line := "".join(beginning):
        yield last_line


def parse_header(header: str) -> tuple[list[str], str]:
    """Return the columns and the delimiter of a header, as `RecordReader.header` has it."""
    delimiter = next((mark for mark in DELIMITERS if mark in header), DELIMITERS[0])
    return next(csv.reader([header], delimiter=delimiter)), delimiter


def format_row(fields: list[str], delimiter: str = ",") -> str:
    """Return a row of CSV without a line end; fields are quoted where they must be."""
    row = io.StringIO()
    csv.writer(row, delimiter=delimiter, lineterminator="\n").writerow(fields)  # a field with a line end is quoted
    return row.getvalue()[:-1]
