"""Bytes to text, block by block: encodings, line ends, and several files as one text."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import itertools
import os
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO

from gentext.errors import CorpusError

#: Number of bytes that are read at once.
BLOCK_SIZE = 1 << 20

#: Byte order marks. UTF-32 stands before UTF-16, since its little-endian mark begins with the one of UTF-16.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
#: The first bytes of a file that gzip has compressed.
_GZIP_MAGIC = b"\x1f\x8b"
_LONGEST_MARK = max(len(mark) for mark, _ in _BYTE_ORDER_MARKS)


def read_blocks(stream: IO[bytes] | gzip.GzipFile, size: int = BLOCK_SIZE) -> Iterator[bytes]:
    """Read a stream to its end, ``size`` bytes at a time."""
    return iter(lambda: stream.read(size), b"")


@contextlib.contextmanager
def open_bytes(path: str | os.PathLike[str]) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Open a file to read its bytes, decompressed where it begins as gzip does. Raises CorpusError where it is damaged.

    A pipe is read as it is: what it begins with cannot be known without reading it.
    """
    with open(path, "rb") as file:
        if not (file.seekable() and file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC):
            if file.seekable():
                file.seek(0)
            yield file
            return
        file.seek(0)
        try:
            with gzip.GzipFile(fileobj=file) as decompressed:
                yield decompressed
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CorpusError(f"{os.fspath(path)}: damaged gzip file ({error}); expected a text") from None


def detect_encoding(head: bytes) -> tuple[bytes, str]:
    """Return the byte order mark at the beginning of a file and its encoding; without a mark, empty and UTF-8."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return mark, encoding
    return b"", "utf-8"


def looks_binary(head: bytes) -> bool:
    """Return whether the beginning of a file has NUL bytes although it is not UTF-16 or UTF-32."""
    return detect_encoding(head)[1] == "utf-8" and b"\0" in head


class _Decoder:
    """An incremental decoder whose errors name the byte of the file."""

    def __init__(self, filename: str, mark: bytes, encoding: str, escape_errors: bool) -> None:
        self._filename = filename
        self._encoding = encoding
        errors = "surrogateescape" if escape_errors and encoding == "utf-8" else "strict"
        self._decoder = codecs.getincrementaldecoder(encoding)(errors)
        self._offset = len(mark)
        self.beginning = ""
        """The text of a block before the byte that is not text."""

    def feed(self, block: bytes, final: bool = False) -> str:
        """Return the text of the block; the bytes of an unfinished character are kept for the next block."""
        if self._encoding == "utf-8" and b"\0" in block:
            raise self._binary_error()
        unfinished = len(self._decoder.getstate()[0])  # bytes of the previous block
        try:
            text = self._decoder.decode(block, final)
        except UnicodeDecodeError as error:
            self.beginning = error.object[: error.start].decode(self._encoding)
            # The positions in the error count from the first unfinished byte.
            raise self._undecodable_error(error, self._offset - unfinished + error.start) from None
        if "\0" in text:
            raise self._binary_error()
        self._offset += len(block)
        return text

    def _binary_error(self) -> CorpusError:
        return CorpusError(
            f"{self._filename}: looks binary (it holds NUL bytes); expected text in UTF-8. If it is text in "
            f"UTF-16, convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW"
        )

    def _undecodable_error(self, error: UnicodeDecodeError, offset: int) -> CorpusError:
        encoding_name = self._encoding.upper()
        conversion_advice = "convert it, for example: iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW"
        advice = conversion_advice if encoding_name == "UTF-8" else "the file is damaged or cut off"
        undecodable_byte = error.object[error.start]
        return CorpusError(
            f"{self._filename}: not {encoding_name} at byte {offset} (0x{undecodable_byte:02x}); {advice}"
        )


def _decode_blocks(file_blocks: Iterable[bytes], filename: str, escape_errors: bool) -> Iterator[str]:
    """Yield the blocks of a file as text, with its line ends as they are."""
    remaining_blocks = iter(file_blocks)
    head = b""
    for block in remaining_blocks:
        head += block
        if len(head) >= _LONGEST_MARK:
            break
    mark, encoding = detect_encoding(head)
    decoder = _Decoder(filename, mark, encoding, escape_errors)
    for block in itertools.chain([head.removeprefix(mark)], remaining_blocks):
        try:
            yield decoder.feed(block)
        except CorpusError:
            yield decoder.beginning
            raise
    yield decoder.feed(b"", final=True)


def unix_lines(pieces: Iterable[str]) -> Iterator[str]:
    """Turn CRLF and CR into LF, also where two pieces share a CRLF. Yields no empty piece."""
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    for piece in pieces:
        if text := newlines.decode(piece):
            yield text
    if text := newlines.decode("", final=True):
        yield text


def decode_text(file_blocks: Iterable[bytes], filename: str, *, escape_errors: bool = False) -> Iterator[str]:
    """Turn the blocks of one file into pieces of text with LF line ends; a byte order mark is dropped.

    Raises CorpusError with the file's name and the offset of the first byte that is not text.

    :param escape_errors: instead of raising it, give each byte that is not UTF-8 as half a surrogate pair, as Python's
        error handler surrogateescape does. For a caller that tells which lines are broken.
    """
    return unix_lines(_decode_blocks(file_blocks, filename, escape_errors))


def encode_text(text: str) -> bytes:
    """Return the UTF-8 bytes from which `decode_text` made a text, also where it has escaped errors."""
    return text.encode("utf-8", "surrogateescape")


def join_files(files: Iterable[Iterable[str]]) -> Iterator[str]:
    """Join texts, with a newline between two of them where the first does not end in one.

    :param files: the pieces of each text; no piece may be empty.
    """
    previous_piece = "\n"
    for pieces in files:
        for index, piece in enumerate(pieces):
            if index == 0 and not previous_piece.endswith("\n"):
                yield "\n"
            yield piece
            previous_piece = piece


def _raise_error(error: OSError) -> None:
    raise error


def files_below(folder: Path, skipped_names: Collection[str] = ()) -> list[Path]:
    """Return the files in a folder and below, sorted by the parts of their path.

    Left out are hidden files and folders, and folders with a name in ``skipped_names``; links to folders are not
    followed. Raises OSError when a folder cannot be listed.
    """
    paths_found: list[Path] = []
    for folder_path, folders, file_names in os.walk(folder, onerror=_raise_error):
        folders[:] = [name for name in folders if name not in skipped_names and not name.startswith(".")]
        paths = (Path(folder_path, name) for name in file_names if not name.startswith("."))
        paths_found += [path for path in paths if path.is_file()]
    return sorted(paths_found, key=lambda path: path.parts)
