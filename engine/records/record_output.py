"""Records as lines of text, JSON or CSV, and a file of them that a stopped command goes on with."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from gentext.console import progress
from gentext.data.records import MAX_FIELD, format_row, parse_header
from gentext.errors import GenError, RunError, UsageError
from gentext.exported.metadata import Bundle
from gentext.files.atomic import advise_room
from gentext.records.record_plan import WrittenRecord

FORMATS = ("text", "jsonl", "csv")
#: What JSON lines and CSV may have besides the text of a record.
FIELDS = ("number", "logprob", "seed", "stream")
#: Bytes of whole records that wait to be written into a file.
BUFFER_BYTES = 2**15
#: Bytes of a written file that are read at once.
BLOCK_BYTES = 2**20


class TableRows:
    """Accepts the texts that are one row of a table with the columns of its header."""

    name = "the number of columns"

    def __init__(self, header: str) -> None:
        columns, self._delimiter = parse_header(header)
        self._width = len(columns)

    def __call__(self, texts: Sequence[str]) -> list[bool]:
        return [self._is_row(text) for text in texts]

    def _is_row(self, text: str) -> bool:
        try:
            rows = [*csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter, strict=True)]
        except csv.Error:
            return False
        return len(rows) == 1 and len(rows[0]) == self._width


class RecordFormat:
    """How records stand in the output, one behind another, each with an end of its own."""

    def __init__(
        self,
        bundle: Bundle,
        name: str | None = None,
        fields: Sequence[str] = (),
        separator: str | None = None,
        *,
        is_alone: bool = False,
    ) -> None:
        """``name`` None: CSV for rows of a table, else text. ``separator`` follows each text instead of a line end.

        ``is_alone``: there is one record, which may have any characters. Raises UsageError for what does not go
        together, and for records of several lines.
        """
        records = bundle.records
        assert records is not None
        self.name = name or ("csv" if records.header and separator is None else "text")
        self.end = "\n" if separator is None else separator
        self._fields, self._header = fields, records.header
        self._delimiter = parse_header(records.header)[1] if records.header else ","
        for field in fields:
            if field not in FIELDS:
                raise UsageError(f"--fields {field}: expected {', '.join(FIELDS)}")
        if self.name not in FORMATS:
            raise UsageError(f"--format {name}: expected {', '.join(FORMATS)}")
        if self.name == "text" and fields:
            raise UsageError(
                f"--fields {','.join(fields)}: expected --format jsonl or csv with it; text has the text alone"
            )
        if self.name != "text" and separator is not None:
            raise UsageError(f"--separator and --format {self.name}: expected one of them; it is for text")
        if separator == "":
            raise UsageError("--separator '': expected a text, by which records can be told apart")
        self._is_alone = is_alone
        if self.name == "text" and separator is None and not is_alone and records.layout.startswith(("blank", "sep")):
            raise UsageError(
                f"the records have several lines, as --records {records.layout} has cut them; write JSON lines with "
                f"--format jsonl, CSV with --format csv, or text with --separator, such as '\\n\\n'"
            )

    @property
    def beginning(self) -> str:
        """What stands before the first record: the header of a table."""
        if self.name == "jsonl" or (self.name == "text" and not self._header):
            return ""
        header = self._header or "text"
        return self._delimiter.join([header, *self._fields]) + self.end

    def format(self, record: WrittenRecord) -> str:
        """Return a record with its end. Raises GenError for a text that could not be told from two."""
        fields = {"number": record.number, "logprob": round(record.logprob, 6)}
        fields |= {"seed": record.seed, "stream": record.stream}
        if self.name == "jsonl":
            own = {name: fields[name] for name in self._fields}
            return json.dumps({"text": record.text, **own}, ensure_ascii=False) + "\n"
        if self.name == "csv":
            text = record.text if self._header else format_row([record.text], self._delimiter)
            return self._delimiter.join([text, *(str(fields[name]) for name in self._fields)]) + "\n"
        if self.end in record.text and not self._is_alone:
            end = "a line end" if self.end == "\n" else f"the separator {self.end!r}"
            raise GenError(
                f"record {record.number:,} has {end} within itself; write JSON lines with --format jsonl, CSV with "
                f"--format csv, or text with another --separator, such as '\\0'"
            )
        return record.text + self.end

    def split(self, file: IO[bytes]) -> Iterator[bytes]:
        """Yield each whole record of an output with its end, as it stands there, behind the beginning."""
        return self._split_rows(file) if self.name == "csv" else _split_at(file, self.end.encode())

    def _split_rows(self, file: IO[bytes]) -> Iterator[bytes]:
        """Yield the rows of CSV, whose fields may have line ends."""
        consumed: list[bytes] = []

        def read_lines() -> Iterator[str]:
            for line in file:
                consumed.append(line)
                yield line.decode("utf-8", "replace")

        csv.field_size_limit(MAX_FIELD)
        rows = csv.reader(read_lines(), delimiter=self._delimiter, strict=True)
        with contextlib.suppress(csv.Error):  # the last row is cut within quotes
            for _ in rows:
                row = b"".join(consumed)
                consumed.clear()
                if row.endswith(b"\n"):
                    yield row

    def parse(self, record: bytes) -> str:
        """Return the text of a record as `split` gives it. Raises RunError for what `format` did not write."""
        text = record.decode("utf-8", "replace").removesuffix(self.end)
        try:
            if self.name == "jsonl":
                return str(json.loads(text)["text"])
            if self.name == "csv" and not self._header:
                return next(csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter, strict=True))[0]
        except (ValueError, LookupError, TypeError, StopIteration, csv.Error):
            raise RunError(
                f"--resume: {text!r:.80} is no record of --format {self.name}, though it stands in the file; put back "
                f"what was written, or begin another file"
            ) from None
        return text.rsplit(self._delimiter, len(self._fields))[0] if self.name == "csv" else text


def _split_at(file: IO[bytes], end: bytes) -> Iterator[bytes]:
    """Yield the parts of a file that have that end, with it."""
    unfinished = b""
    while block := file.read(BLOCK_BYTES):
        *parts, unfinished = (unfinished + block).split(end)
        for part in parts:
            yield part + end


class RecordFile:
    """A file of records, which has whole ones alone, however the command ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting = bytearray()
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise RunError(f"{path}: cannot be written ({error.strerror})") from None
        self._size = 0

    def read_whole(self, record_format: RecordFormat) -> Iterator[bytes]:
        """Yield the whole records, see `RecordFormat.split`; at last, cut off what stands behind them, to write there.

        The file is read piece by piece, so it may be larger than memory.
        """
        megabytes = os.fstat(self._file).st_size / 1e6
        size = 0
        with self.path.open("rb") as file, progress(f"reading {self.path}", megabytes, "MB") as bar:
            beginning = record_format.beginning.encode()
            if file.read(len(beginning)) == beginning:
                size = len(beginning)
                for record in record_format.split(file):
                    size += len(record)
                    if size / 1e6 >= bar.done + 1:
                        bar.advance(1)
                    yield record
        self._size = size
        os.ftruncate(self._file, size)
        os.lseek(self._file, 0, os.SEEK_END)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is written yet."""
        return not self._size and not self._waiting

    def write(self, text: str) -> None:
        """Write a whole record."""
        self._waiting += text.encode()
        if len(self._waiting) >= BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits. Raises RunError, and leaves whole records alone, where that fails."""
        try:
            view = memoryview(bytes(self._waiting))
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            self._cut()
            raise RunError(
                f"{self.path}: cannot be written ({error.strerror}); its records are whole, --resume goes on with them"
                f"{advise_room(error, self._file)}"
            ) from None
        except BaseException:
            self._cut()
            raise
        self._size += len(self._waiting)
        self._waiting.clear()

    def close(self) -> None:
        """Write what waits, and close the file."""
        try:
            if self._waiting:
                self.flush()
        finally:
            os.close(self._file)

    def _cut(self) -> None:
        """Cut the file after its last whole record, if it is no device."""
        self._waiting.clear()
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)


def read_settings(path: Path) -> dict[str, Any]:
    """Return what stands beside a file of records: the words of its command, the seed, and the model's fingerprint."""
    file = settings_path(path)
    try:
        settings = json.loads(file.read_bytes())
        if not (
            isinstance(settings, dict) and isinstance(settings["words"], list) and isinstance(settings["seed"], int)
        ):
            raise ValueError("other fields than expected")
        return settings
    except FileNotFoundError:
        raise RunError(f"{file}: missing; --resume goes on with a file that gen sample -o began") from None
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError) as error:
        raise RunError(f"{file}: damaged ({error}); begin another file with gen sample -o") from None


def settings_path(path: Path) -> Path:
    """Return the path of the settings beside a file of records."""
    return path.with_name(f"{path.name}.json")
