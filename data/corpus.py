"""A text to learn from: a file, a folder, standard input, or a name of the catalogue.

Any Unicode text in UTF-8 will do; UTF-16 and UTF-32 are read where a byte order mark says so.
Line ends become LF. Nothing else is changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from gentext.console import say
from gentext.data import catalogue
from gentext.data.decoding import (
    BLOCK,
    blocks,
    decoded,
    files_below,
    join_files,
    looks_binary,
    unix_lines,
)
from gentext.errors import CorpusError, nearest

#: In a folder, files that are never text: some have no NUL byte near their beginning.
_BINARY = re.compile(
    r"\.(7z|bz2|docx|epub|gif|gz|jpe?g|mp[34]|np[yz]|od[ts]|onnx|pdf|png|pptx?|pt|pyc|safetensors|tar|tgz|webp"
    r"|xlsx?|xz|zip|zst)$",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A text, and where it comes from."""

    name: str
    """A short name: the file's without its suffix, the folder's, the catalogue's, or stdin."""
    origin: str
    """What the user gave."""
    text: str = dataclasses.field(repr=False)
    sha256: str
    """Of the text as it is here, in UTF-8."""

    @property
    def characters(self) -> int:
        """How many code points the text has."""
        return len(self.text)


def read_corpus(source: str) -> Corpus:
    """Read a text: a file, a folder with all text files below it, ``-``, or a catalogue name.

    A path that exists wins over a catalogue name. Raises CorpusError when there is no such text,
    when it cannot be read or decoded, or when it is empty.
    """
    digest = hashlib.sha256()
    pieces: list[str] = []
    for piece in iter_text(source):
        digest.update(piece.encode())
        pieces.append(piece)
    return Corpus(corpus_name(source), source, "".join(pieces), digest.hexdigest())


def iter_text(source: str, block: int = BLOCK, again: bool = False) -> Iterator[str]:
    """Yield the text that `read_corpus` reads in pieces, for texts that are larger than memory.

    ``block`` is how many bytes are read at once; read ``again``, a text has nothing new to say
    about itself. Raises CorpusError as `read_corpus` does, on the way: pieces may have come before.
    """
    empty = True
    with _readable(source):
        for piece in _pieces(source, block, again):
            empty = False
            yield piece
    if empty:
        what = "no text in this folder" if os.path.isdir(source) else "empty"
        raise CorpusError(f"{source}: {what}; expected some text to learn from")


def _pieces(source: str, block: int, again: bool) -> Iterator[str]:
    if source == "-":
        return decoded(blocks(_stdin(), block), "standard input")
    if _is_named(source):
        return _catalogued(catalogue.CATALOGUE[source], block)
    if source in catalogue.CATALOGUE and not again:
        say(f"{source}: reading the path of that name, not the corpus of the catalogue")
    return _folder(Path(source), block, again) if os.path.isdir(source) else _file(source, block)


def _is_named(source: str) -> bool:
    return source in catalogue.CATALOGUE and not os.path.exists(source)


def is_read_once(source: str) -> bool:
    """Tell whether a text is gone when it was read: standard input, a pipe."""
    return source == "-" or (os.path.exists(source) and not os.path.isfile(source) and not os.path.isdir(source))


def corpus_name(source: str) -> str:
    """Return a short name for a text."""
    if source == "-":
        return "stdin"
    if _is_named(source):
        return source
    path = Path(os.path.abspath(source))  # so that . and .. have a name
    return (path.name if path.is_dir() else path.stem) or "text"


@contextlib.contextmanager
def _readable(source: str) -> Iterator[None]:
    """Say in the user's words why a path cannot be read."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError) and error.filename == source:
            raise _missing(source) from None
        where = source if error.filename is None else error.filename
        raise CorpusError(f"{where}: cannot be read ({error.strerror}); expected a text") from None
    except ValueError:  # a name that no file can have: with a NUL, or with half a surrogate pair
        raise _missing(source) from None


def _missing(source: str) -> CorpusError:
    given, names = source or "''", ", ".join(catalogue.CATALOGUE)
    return CorpusError(
        f"{given}: no such file, and no corpus of that name.{nearest(source, catalogue.CATALOGUE)} Catalogue: {names}"
    )


def _stdin() -> IO[bytes]:
    if sys.stdin is None:  # it was closed before the program began
        raise CorpusError("-: standard input is closed; pipe a text into it, or give a file")
    return sys.stdin.buffer


def _file(source: str, block: int) -> Iterator[str]:
    with open(source, "rb") as stream:
        yield from decoded(blocks(stream, block), source)


def _catalogued(entry: catalogue.Entry, block: int) -> Iterator[str]:
    if entry.filename is None:
        yield from unix_lines(catalogue.embedded(entry))
        return
    path = catalogue.fetch(entry)
    with catalogue.open_file(path) as stream:
        yield from decoded(blocks(stream, block), str(path))


def _folder(folder: Path, block: int, again: bool) -> Iterator[str]:
    """Yield the text files below a folder as one text, and say how many others there were."""
    skipped = 0

    def files() -> Iterator[Iterator[str]]:
        nonlocal skipped
        for path in files_below(folder):
            with path.open("rb") as stream:
                head = stream.read(BLOCK)
                if _BINARY.search(path.name) or looks_binary(head):
                    skipped += 1
                    continue
                yield decoded(itertools.chain([head], blocks(stream, block)), str(path))

    yield from join_files(files())
    if skipped and not again:
        say(f"{folder}: skipped {skipped} {'file that is' if skipped == 1 else 'files that are'} not text")
