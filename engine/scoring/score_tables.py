"""Writes rows as JSON lines, CSV or Parquet."""

from __future__ import annotations

import contextlib
import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, cast

import msgspec

from gentext.console import EscapingStream
from gentext.errors import MissingExtra, UsageError
from gentext.files import atomic

FORMATS = ("jsonl", "csv", "parquet")

Row = Mapping[str, Any]


class TableWriter(Protocol):
    """Writes rows into a file."""

    def write(self, rows: Sequence[Row]) -> None: ...

    def close(self) -> None:
        """Write what stands at the end of a table."""
        ...


def make_writer(table_format: str, file: IO[bytes], columns: Mapping[str, type]) -> TableWriter:
    """Return a writer of one of FORMATS. Raises MissingExtra for Parquet without pyarrow."""
    if table_format == "parquet":
        return ParquetWriter(file, columns)
    return CsvWriter(file, columns) if table_format == "csv" else JsonWriter(file)


class JsonWriter:
    """Writes each row as an object on a line of its own. A number that JSON lacks, such as -inf, becomes null."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._encoder = file, msgspec.json.Encoder()

    def write(self, rows: Sequence[Row]) -> None:
        self._file.write(self._encoder.encode_lines(rows))

    def close(self) -> None:
        pass


class CsvWriter:
    """Writes a header and rows; a field is quoted where it must be."""

    def __init__(self, file: IO[bytes], columns: Mapping[str, type]) -> None:
        self._file, self._columns = file, list(columns)
        self._write_rows([self._columns])

    def write(self, rows: Sequence[Row]) -> None:
        self._write_rows([[row[name] for name in self._columns] for row in rows])

    def _write_rows(self, rows: Sequence[Sequence[Any]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode())

    def close(self) -> None:
        pass


class ParquetWriter:
    """Writes a table of Parquet. (pyarrow)"""

    def __init__(self, file: IO[bytes], columns: Mapping[str, type]) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise MissingExtra("--format parquet", "parquet") from None
        types = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
        self._arrow = pyarrow
        self._schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema)

    def write(self, rows: Sequence[Row]) -> None:
        self._writer.write_table(self._arrow.Table.from_pylist(list(rows), self._schema))

    def close(self) -> None:
        self._writer.close()


def check_output(path: Path | None, table_format: str) -> None:
    """Raise UsageError for a format that is none, a path that no file can have, and Parquet on a terminal."""
    if table_format not in FORMATS:
        raise UsageError(f"--format {table_format}: expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if path is None and table_format == "parquet" and sys.stdout.isatty():
        raise UsageError("--format parquet: a terminal cannot show it; name a file with -o, or a pipe")
    if path is not None:
        atomic.check_output(path)


@contextlib.contextmanager
def open_output(path: Path | None) -> Iterator[IO[bytes]]:
    """Open the output of a command, see `gentext.files.atomic.open_output`; None for standard output."""
    if path is None:
        yield cast(IO[bytes], _TerminalBytes() if isinstance(sys.stdout, EscapingStream) else sys.stdout.buffer)
        sys.stdout.flush()
    else:
        with atomic.open_output(path) as file:
            yield file


class _TerminalBytes(io.RawIOBase):
    """Bytes for a terminal, where control characters are written as escapes."""

    def write(self, block: Any) -> int:
        return sys.stdout.write(bytes(block).decode("utf-8", "replace"))
