"""Reads a text to learn from: a file, a folder, standard input, or a name of the catalogue.

A text is Unicode in UTF-8, or in UTF-16 or UTF-32 if it begins with a byte order mark. A file may be compressed by
gzip. Line ends become LF; nothing else is changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
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
    BLOCK_SIZE,
    decode_text,
    files_below,
    join_files,
    looks_binary,
    open_bytes,
    read_blocks,
    unix_lines,
)
from gentext.errors import CorpusError, nearest
from gentext.files.file_names import readable_name

#: Names of files that are never text. In a folder they are skipped by name: some have no NUL byte near their beginning.
_BINARY_SUFFIX = re.compile(
    r"\.(7z|bz2|docx|epub|gif|gz|jpe?g|mp[34]|np[yz]|od[ts]|onnx|pdf|png|pptx?|pt|pyc|safetensors|tar|tgz|webp"
    r"|xlsx?|xz|zip|zst)$",
    re.IGNORECASE,
)
#: Characters that are read from a pipe into memory, at most: a pipe may have no end.
MAX_PIPED_CHARACTERS = 2**27


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A text, and where it comes from."""

    name: str
    """A short name: the file's without its suffix, the folder's, the catalogue's, or stdin."""
    origin: str
    """The path or name by which the user chose the text."""
    text: str = dataclasses.field(repr=False)
    sha256: str
    """Hash of ``text`` in UTF-8."""

    @property
    def characters(self) -> int:
        """Number of code points of the text."""
        return len(self.text)


def read_corpus(source: str) -> Corpus:
    """Read a text: a file, a folder with all text files below it, ``-``, or a catalogue name.

    A path that exists wins over a catalogue name. Raises CorpusError when there is no such text,
    when it cannot be read or decoded, when it is empty, or when it comes from a pipe and does not end.
    """
    digest = hashlib.sha256()
    pieces: list[str] = []
    characters = 0
    for piece in iter_text(source):
        digest.update(piece.encode())
        pieces.append(piece)
        characters += len(piece)
        if characters > MAX_PIPED_CHARACTERS and is_read_once(source):
            raise CorpusError(f"{source}: more than {MAX_PIPED_CHARACTERS:,} characters and no end yet; give a file")
    return Corpus(corpus_name(source), source, "".join(pieces), digest.hexdigest())


def iter_text(
    source: str, block_size: int = BLOCK_SIZE, *, quiet: bool = False, escape_errors: bool = False
) -> Iterator[str]:
    """Yield the text that `read_corpus` returns, in pieces, for texts that are larger than memory.

    Raises CorpusError as `read_corpus` does, possibly after some pieces.

    :param block_size: the number of bytes that are read at once.
    :param quiet: leave out the lines about skipped files and the like. For a text that is read a second time.
    :param escape_errors: give bytes that are no text as `decode_text` does, instead of raising CorpusError.
    """
    is_empty = True
    with _read_errors(source):
        for piece in _read_pieces(source, block_size, quiet, escape_errors):
            is_empty = False
            yield piece
    if is_empty:
        problem = "no text in this folder" if os.path.isdir(source) else "empty"
        raise CorpusError(f"{source}: {problem}; expected some text")


def _read_pieces(source: str, block_size: int, quiet: bool, escape_errors: bool) -> Iterator[str]:
    if source == "-":
        return decode_text(read_blocks(_open_stdin(), block_size), "standard input", escape_errors=escape_errors)
    if _is_in_catalogue(source):
        return _read_entry(catalogue.CATALOGUE[source], block_size)
    if source in catalogue.CATALOGUE and not quiet:
        say(f"{source}: reading the path of that name, not the corpus of the catalogue")
    if os.path.isdir(source):
        return _read_folder(Path(source), block_size, quiet, escape_errors)
    return _read_file(source, block_size, escape_errors)


def _is_in_catalogue(source: str) -> bool:
    return source in catalogue.CATALOGUE and not os.path.exists(source)


def is_read_once(source: str) -> bool:
    """Return whether a text can be read only once: standard input, a pipe."""
    return source == "-" or (os.path.exists(source) and not os.path.isfile(source) and not os.path.isdir(source))


def corpus_name(source: str) -> str:
    """Return a short name for a text."""
    if source == "-":
        return "stdin"
    if _is_in_catalogue(source):
        return source
    path = Path(os.path.abspath(source))  # . and .. have a name then
    return readable_name(path.name if os.path.isdir(path) else path.stem) or "text"


@contextlib.contextmanager
def _read_errors(source: str) -> Iterator[None]:
    """Raise the errors of reading a path as CorpusError."""
    try:
        yield
    except OSError as error:
        if "\n" in source or error.errno == errno.ENAMETOOLONG:
            raise _text_as_path_error(source) from None
        if isinstance(error, FileNotFoundError | NotADirectoryError) and error.filename == source:
            raise _missing_text_error(source) from None
        failed_path = source if error.filename is None else error.filename
        raise CorpusError(f"{failed_path}: cannot be read ({error.strerror}); expected a text") from None
    except ValueError:  # no file can have this name: it holds a NUL, or half a surrogate pair
        raise _missing_text_error(source) from None


def _text_as_path_error(source: str) -> CorpusError:
    """Return the error for a text in the place of its path."""
    return CorpusError(
        f"{source[:40]!r}...: no file has such a name; if these {len(source):,} characters are the text, "
        "pipe it in with CORPUS -, or in Python give it as text=..."
    )


def _missing_text_error(source: str) -> CorpusError:
    shown_source, catalogue_names = source or "''", ", ".join(catalogue.CATALOGUE)
    return CorpusError(
        f"{shown_source}: no such file, and no corpus of that name.{nearest(source, catalogue.CATALOGUE)} "
        f"Catalogue: {catalogue_names}"
    )


def _open_stdin() -> IO[bytes]:
    if sys.stdin is None:  # it was closed before the program began
        raise CorpusError("-: standard input is closed; pipe a text into it, or give a file")
    return sys.stdin.buffer


def _read_file(source: str, block_size: int, escape_errors: bool) -> Iterator[str]:
    with open_bytes(source) as stream:
        yield from decode_text(read_blocks(stream, block_size), source, escape_errors=escape_errors)


def _read_entry(entry: catalogue.CatalogueEntry, block_size: int) -> Iterator[str]:
    if entry.filename is None:
        yield from unix_lines(catalogue.read_embedded(entry))
        return
    path = catalogue.fetch_file(entry)
    with catalogue.open_file(path) as stream:
        yield from decode_text(read_blocks(stream, block_size), str(path))


def _read_folder(folder: Path, block_size: int, quiet: bool, escape_errors: bool) -> Iterator[str]:
    """Yield the text files below a folder as one text, and report the number of files that were skipped."""
    skipped_count = 0

    def decoded_files() -> Iterator[Iterator[str]]:
        nonlocal skipped_count
        for path in files_below(folder):
            with path.open("rb") as stream:
                head = stream.read(BLOCK_SIZE)
                if _BINARY_SUFFIX.search(path.name) or looks_binary(head):
                    skipped_count += 1
                    continue
                blocks = itertools.chain([head], read_blocks(stream, block_size))
                yield decode_text(blocks, str(path), escape_errors=escape_errors)

    yield from join_files(decoded_files())
    if skipped_count and not quiet:
        say(f"{folder}: skipped {skipped_count} {'file that is' if skipped_count == 1 else 'files that are'} not text")
