"""A text of any size, read piece by piece as often as it takes, in a fixed amount of memory."""

from __future__ import annotations

import codecs
import collections
import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

from gentext.data.corpus import corpus_name, is_read_once, iter_text
from gentext.data.decoding import blocks
from gentext.data.encoded import cache_folder
from gentext.errors import CorpusError

#: Characters of the longest piece that a tokenizer is given.
PIECE = 1 << 20
#: Bytes up to which what can be read only once is kept in memory, not in a temporary file.
IN_MEMORY = 1 << 24


class CorpusStream:
    """The pieces of a text; its length and hash are known once it was read to the end.

    It may be iterated over several times; use `open_corpus` to get one. The pieces depend on the
    text alone: see `cut_pieces`. Raises CorpusError as `iter_text` does, and at the end when the
    text is not the one that was read before.
    """

    def __init__(self, origin: str, spool: IO[bytes] | None, keep: int) -> None:
        self.origin, self.name = origin, corpus_name(origin)
        self.characters = 0
        """How many code points the text has."""
        self.sha256 = ""
        """Of the text in UTF-8, with LF line ends; empty until it was read to the end."""
        self.first, self.last = "", ""
        """Its first piece, and its last ``keep`` characters."""
        self._spool, self._keep = spool, keep

    def __iter__(self) -> Iterator[str]:
        digest, characters = hashlib.sha256(), 0
        ends: collections.deque[str] = collections.deque()
        kept = 0
        for piece in cut_pieces(self._text(), PIECE):
            digest.update(piece.encode())
            characters += len(piece)
            self.first = self.first or piece
            ends.append(piece)
            kept += len(piece)
            while kept - len(ends[0]) >= self._keep:
                kept -= len(ends.popleft())
            yield piece
        if self.sha256 and self.sha256 != digest.hexdigest():
            raise CorpusError(
                f"{self.name}: the text changed while it was read; wait until it is complete, or train on a copy"
            )
        self.sha256, self.characters = digest.hexdigest(), characters
        self.last = "".join(ends)[-self._keep :]

    def _text(self) -> Iterator[str]:
        if self._spool is None:
            return iter_text(self.origin, again=bool(self.sha256))
        self._spool.seek(0)
        return codecs.iterdecode(blocks(self._spool), "utf-8")

    def read_through(self) -> None:
        """Read to the end, to learn what that tells."""
        collections.deque(self, maxlen=0)


def cut_pieces(text: Iterable[str], size: int) -> Iterator[str]:
    """Cut a text into pieces of at most ``size`` characters, whatever the blocks are that it comes in.

    A piece ends behind its last line end; one without, behind its last space; one without that
    too, where it is full.
    """
    rest = ""
    for block in text:
        rest += block
        while len(rest) > size:
            end = rest.rfind("\n", 0, size) + 1 or rest.rfind(" ", 0, size) + 1 or size
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest


@contextlib.contextmanager
def open_corpus(source: str, keep: int) -> Iterator[CorpusStream]:
    """Open a text to read it more than once; its last ``keep`` characters will be remembered.

    Standard input and pipes are copied first: into memory, or what is longer into a temporary
    file in the cache folder. Raises CorpusError.
    """
    if not is_read_once(source):
        yield CorpusStream(source, None, keep)
        return
    with tempfile.SpooledTemporaryFile(IN_MEMORY, dir=_spool_folder()) as spool:
        for piece in iter_text(source):
            try:
                spool.write(piece.encode())
            except OSError as error:
                raise CorpusError(
                    f"{source}: cannot be copied into a temporary file, to be read twice ({error.strerror}); "
                    f"make room there, let GEN_CACHE_DIR name another folder, or give a file"
                ) from None
        yield CorpusStream(source, spool, keep)


def _spool_folder() -> str | None:
    """Return the cache folder, where that can be written: the system's own may be a part of memory."""
    folder = cache_folder()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return str(folder) if os.access(folder, os.W_OK | os.X_OK) else None
