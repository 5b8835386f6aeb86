"""Bytes to text, block by block: encodings, line ends, and several files as one text."""

from __future__ import annotations

import codecs
import io
import itertools
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO

from gentext.errors import CorpusError

#: Bytes that are read at once.
BLOCK = 1 << 20

#: Byte order marks; UTF-32 stands before UTF-16, whose mark is the beginning of its own.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LONGEST_MARK = max(len(mark) for mark, _ in _MARKS)


def blocks(stream: IO[bytes], size: int = BLOCK) -> Iterator[bytes]:
    """Read a stream to its end, ``size`` bytes at a time."""
    return iter(lambda: stream.read(size), b"")


def encoding_of(head: bytes) -> tuple[bytes, str]:
    """Return the byte order mark that a file begins with, or none, and its encoding: else UTF-8."""
    return next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), (b"", "utf-8"))


def looks_binary(head: bytes) -> bool:
    """Tell whether the beginning of a file has NUL bytes where text has none."""
    return encoding_of(head)[1] == "utf-8" and b"\0" in head


class _Decoder:
    """An incremental decoder that knows at which byte of the file it stands."""

    def __init__(self, where: str, mark: bytes, encoding: str) -> None:
        self._where = where
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._offset = len(mark)

    def feed(self, block: bytes, final: bool = False) -> str:
        """Return the text of the block; bytes of an unfinished character wait for the next one."""
        if self._encoding == "utf-8" and b"\0" in block:
            raise self._binary()
        waiting = len(self._decoder.getstate()[0])
        try:
            text = self._decoder.decode(block, final)
        except UnicodeDecodeError as error:
            # The positions in the error count from the first byte that was waiting.
            raise self._undecodable(error, self._offset - waiting + error.start) from None
        if "\0" in text:
            raise self._binary()
        self._offset += len(block)
        return text

    def _binary(self) -> CorpusError:
        return CorpusError(
            f"{self._where}: looks binary (it holds NUL bytes); expected text in UTF-8. If it is text in "
            f"UTF-16, convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW"
        )

    def _undecodable(self, error: UnicodeDecodeError, offset: int) -> CorpusError:
        name = self._encoding.upper()
        convert = "convert it, for example: iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW"
        todo = convert if name == "UTF-8" else "the file is damaged or cut off"
        byte = error.object[error.start]
        return CorpusError(f"{self._where}: not {name} at byte {offset} (0x{byte:02x}); {todo}")


def _decode(data: Iterable[bytes], where: str) -> Iterator[str]:
    rest = iter(data)
    head = b""
    for block in rest:
        head += block
        if len(head) >= _LONGEST_MARK:
            break
    mark, encoding = encoding_of(head)
    decoder = _Decoder(where, mark, encoding)
    for block in itertools.chain([head.removeprefix(mark)], rest):
        yield decoder.feed(block)
    yield decoder.feed(b"", final=True)


def unix_lines(pieces: Iterable[str]) -> Iterator[str]:
    """Turn CRLF and CR into LF, also where a CRLF lies across two pieces. No piece is empty."""
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    for piece in pieces:
        if text := newlines.decode(piece):
            yield text
    if text := newlines.decode("", final=True):
        yield text


def decoded(data: Iterable[bytes], where: str) -> Iterator[str]:
    """Turn the blocks of one file into pieces of text with LF line ends; a byte order mark is dropped.

    Raises CorpusError, naming ``where`` and the offset of the first byte that is not text.
    """
    return unix_lines(_decode(data, where))


def join_files(files: Iterable[Iterable[str]]) -> Iterator[str]:
    """Make one text of many; a newline goes between two where the first does not end in one.

    Each file comes as pieces, none of which is empty.
    """
    last = "\n"
    for pieces in files:
        for place, piece in enumerate(pieces):
            if place == 0 and not last.endswith("\n"):
                yield "\n"
            yield piece
            last = piece


def _stop(error: OSError) -> None:
    raise error


def files_below(folder: Path, skip: Collection[str] = ()) -> list[Path]:
    """Return the files in a folder and below, sorted by the parts of their path.

    Hidden ones and folders of a name in ``skip`` are left out, and links to folders are not
    followed. Raises OSError when a folder cannot be listed.
    """
    found: list[Path] = []
    for root, folders, names in os.walk(folder, onerror=_stop):
        folders[:] = [name for name in folders if name not in skip and not name.startswith(".")]
        paths = (Path(root, name) for name in names if not name.startswith("."))
        found += [path for path in paths if path.is_file()]
    return sorted(found, key=lambda path: path.parts)
