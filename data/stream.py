"""A text of any size, read piece by piece and more than once, in a fixed amount of memory."""

from __future__ import annotations

import codecs
import collections
import contextlib
import errno
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

from gentext.console import progress
from gentext.data.corpus import corpus_name, is_read_once, iter_text
from gentext.data.decoding import encode_text, read_blocks
from gentext.data.encoded import cache_folder
from gentext.data.in_memory import InMemoryCorpus
from gentext.errors import CorpusError

#: Maximum number of characters of a piece.
PIECE_SIZE = 1 << 20
#: A text that can be read only once is copied into memory up to this number of bytes, beyond it into a temporary file.
MAX_BYTES_IN_MEMORY = 1 << 24


class CorpusStream:
    """An iterable over the pieces of a text; `open_corpus` returns one. It may be iterated over several times.

    The length and the hash of the text are known once it was read to the end. How a text is cut into pieces
    depends on the text alone: see `cut_pieces`. Iterating raises CorpusError as `iter_text` does, and
    at the end when the text is not the one that was read before.
    """

    def __init__(self, origin: str, spool: IO[bytes] | None, tail_length: int, escape_errors: bool) -> None:
        self.origin, self.name = origin, corpus_name(origin)
        self.characters = 0
        """Number of code points of the text; 0 until it was read to the end."""
        self.sha256 = ""
        """Hash of the text in UTF-8, with LF line ends; empty until it was read to the end."""
        self.first_piece, self.tail = "", ""
        """Its first piece, and its last ``tail_length`` characters, after it was read to the end."""
        self._spool, self._tail_length, self._escape_errors = spool, tail_length, escape_errors

    def __iter__(self) -> Iterator[str]:
        digest, characters = hashlib.sha256(), 0
        # The last pieces: as few as have `tail_length` characters together.
        tail_pieces: collections.deque[str] = collections.deque()
        tail_characters = 0
        for piece in self._show_first_reading(cut_pieces(self._read_text(), PIECE_SIZE)):
            digest.update(encode_text(piece))
            characters += len(piece)
            self.first_piece = self.first_piece or piece
            tail_pieces.append(piece)
            tail_characters += len(piece)
            while tail_characters - len(tail_pieces[0]) >= self._tail_length:
                tail_characters -= len(tail_pieces.popleft())
            yield piece
        if self.sha256 and self.sha256 != digest.hexdigest():
            raise CorpusError(
                f"{self.name}: the text changed while it was read; wait until it is complete, or train on a copy"
            )
        self.sha256, self.characters = digest.hexdigest(), characters
        self.tail = "".join(tail_pieces)[-self._tail_length :]

    def _read_text(self) -> Iterator[str]:
        if self._spool is None:
            return iter_text(self.origin, quiet=bool(self.sha256), escape_errors=self._escape_errors)
        self._spool.seek(0)
        return codecs.iterdecode(read_blocks(self._spool), "utf-8", "surrogateescape")

    def _show_first_reading(self, pieces: Iterator[str]) -> Iterator[str]:
        """Yield the pieces; the first time, show how far they are. Later readers show what they do with them."""
        if self.sha256:
            yield from pieces
            return
        is_file = self._spool is None and os.path.isfile(self.origin)
        megabytes = os.path.getsize(self.origin) / 1e6 if is_file else None
        with progress(f"reading {self.name}", megabytes, "MB") as bar:
            for piece in pieces:
                yield piece
                bar.advance(len(encode_text(piece)) / 1e6)

    def read_through(self) -> None:
        """Read to the end, which sets the length, the hash and the tail."""
        collections.deque(self, maxlen=0)


def cut_pieces(text: Iterable[str], size: int) -> Iterator[str]:
    """Cut a text into pieces of at most ``size`` characters. The blocks in which it comes make no difference.

    A piece ends after the last line end among the next ``size`` characters; without a line end, after the
    last space; without a space, after ``size`` characters.
    """
    buffer = ""
    for block in text:
        buffer += block
        while len(buffer) > size:
            end = buffer.rfind("\n", 0, size) + 1 or buffer.rfind(" ", 0, size) + 1 or size
            yield buffer[:end]
            buffer = buffer[end:]
    if buffer:
        yield buffer


@contextlib.contextmanager
def open_corpus(
    source: str | InMemoryCorpus, tail_length: int, *, escape_errors: bool = False
) -> Iterator[CorpusStream]:
    """Open a text to read it more than once; the stream keeps its last ``tail_length`` characters.

    Standard input and pipes are copied first: into memory, or what is longer into a temporary
    file in the cache folder. Raises CorpusError. ``escape_errors`` is that of `iter_text`.
    """
    if isinstance(source, InMemoryCorpus):
        yield CorpusStream(source.filename, io.BytesIO(source.content), tail_length, escape_errors)
        return
    if not is_read_once(source):
        yield CorpusStream(source, None, tail_length, escape_errors)
        return
    folder = _spool_folder()
    with tempfile.SpooledTemporaryFile(MAX_BYTES_IN_MEMORY, dir=folder) as spool:
        for piece in iter_text(source, escape_errors=escape_errors):
            try:
                spool.write(encode_text(piece))
                _check_room(spool.tell(), folder)
            except OSError as error:
                raise CorpusError(
                    f"{source}: cannot be copied into a temporary file, to be read twice ({error.strerror}); "
                    f"make room there, let GEN_CACHE_DIR name another folder, or give a file"
                ) from None
        yield CorpusStream(source, spool, tail_length, escape_errors)


def _check_room(copied: int, folder: str | None) -> None:
    """Raise OSError when a copy takes up more room than it has left: a pipe without end must not fill the disk."""
    if copied > MAX_BYTES_IN_MEMORY and copied > shutil.disk_usage(folder or tempfile.gettempdir()).free:
        raise OSError(errno.ENOSPC, f"after {copied / 1e9:.1f} GB, half of the room there is taken")


def _spool_folder() -> str | None:
    """Return the cache folder where it can be written, else None for the system's folder, which may lie in memory."""
    folder = cache_folder()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return str(folder) if os.access(folder, os.W_OK | os.X_OK) else None
