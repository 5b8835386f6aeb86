"""A text as ids in a file that is mapped into memory: made once, and found again by what made it.

The file holds a header, the ids in the smallest unsigned type, and how often each stands among
them. docs/formats.md has the bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from gentext.console import say
from gentext.errors import CorpusError, RunError
from gentext.interfaces import Ids
from gentext.run import atomic_write

#: Version of the file, and a part of its key: another one is never read.
FORMAT = 1
#: Magic, key, symbols, ids, CRC-32 of all that follows the header, CRC-32 of the header so far.
_HEADER = struct.Struct("<12s32sQQI")
_MAGIC = b"gentext ids\n"
_CRC = struct.Struct("<I")
#: Where the ids begin.
BEGIN = 128
SUFFIX = ".ids"
#: Bytes that are checked at once.
BLOCK = 1 << 22
#: Seconds after which a file that no run has used is removed.
KEEP = 30 * 24 * 3600


@dataclasses.dataclass(frozen=True)
class Encoded:
    """The ids of a text, read-only, and how often each stands among them (int64 [V])."""

    ids: Ids
    counts: NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What makes the ids of a text what they are."""

    facts: list[Any]
    """The text's hash, the tokenizer's name and state and the like, for JSON."""
    vocab_size: int
    first: Ids
    """The first ids: a tokenizer may have changed where its name and state have not."""

    @property
    def key(self) -> bytes:
        """The SHA-256 by which the file is found."""
        facts = json.dumps([FORMAT, self.vocab_size, *self.facts], sort_keys=True)
        return hashlib.sha256(facts.encode()).digest()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned type that holds all ids."""
        return np.min_scalar_type(self.vocab_size - 1).newbyteorder("<")


class _Damaged(Exception):
    """A file is not what it should be."""


def cache_folder() -> Path:
    """Return the folder of encoded texts: ``GEN_CACHE_DIR``, else in the user's cache; it need not exist."""
    named = os.environ.get("GEN_CACHE_DIR")
    if named:
        return Path(named).expanduser()
    import pooch  # type: ignore[import-untyped]

    return Path(pooch.os_cache("gentext")) / "encoded"


def encoded(recipe: Recipe, make: Iterable[Ids]) -> Encoded:
    """Return a text's ids from the cache, or put there what ``make`` yields, each time it is asked.

    Where the cache cannot be written they go into a temporary file, else into memory; that is
    said. Raises CorpusError when they fit nowhere.
    """
    folder = cache_folder()
    path = folder / (recipe.key.hex() + SUFFIX)
    try:
        return _read(path, recipe)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, _Damaged) as error:
        say(f"{path}: cannot be used ({_why(error)}); the text is encoded anew")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _tidy(folder)
        with atomic_write(path) as file:
            made = _write(file, recipe, make)
        with path.open("rb") as file:
            return _mapped(file, recipe, *made)
    except (OSError, RunError) as error:
        say(f"{folder}: cannot be written ({_why(error)}); the encoded text goes into a temporary file this time")
    try:
        with tempfile.TemporaryFile() as file:
            return _mapped(file, recipe, *_write(file, recipe, make))
    except OSError as error:
        say(f"no temporary file can be written ({_why(error)}); the encoded text is kept in memory")
    try:
        memory = io.BytesIO()
        tokens, counts = _write(memory, recipe, make)
        return Encoded(np.frombuffer(memory.getvalue(), recipe.dtype, tokens, BEGIN), counts)
    except MemoryError:
        raise CorpusError(
            f"the encoded text fits neither {folder} nor memory; let GEN_CACHE_DIR name a folder with more room"
        ) from None


def _why(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, RunError) else error
    return getattr(cause, "strerror", None) or str(error)


def _write(file: IO[bytes], recipe: Recipe, make: Iterable[Ids]) -> tuple[int, NDArray[np.int64]]:
    """Write a whole file; return how many ids it has, and their counts.

    The header comes last, so that a file that was cut off has none.
    """
    counts = np.zeros(recipe.vocab_size, "<i8")
    check = tokens = 0
    file.write(bytes(BEGIN))
    for ids in make:
        block = ids.astype(recipe.dtype)
        file.write(block.data)
        check = zlib.crc32(block.data, check)
        tokens += len(block)
        counts += np.bincount(block, minlength=len(counts))
    file.write(counts.data)
    file.seek(0)
    header = _HEADER.pack(_MAGIC, recipe.key, recipe.vocab_size, tokens, zlib.crc32(counts.data, check))
    file.write(header + _CRC.pack(zlib.crc32(header)))
    file.flush()
    return tokens, counts.astype(np.int64)


def _read(path: Path, recipe: Recipe) -> Encoded:
    """Map a file of the cache, after reading it through: its size, its checksum, the range of its ids."""
    with path.open("rb") as file:
        tokens, expected = _read_header(file, recipe)
        file.seek(BEGIN)
        largest = check = 0
        for ids in _blocks(file, recipe, tokens):
            check = zlib.crc32(ids.data, check)
            largest = max(largest, int(ids.max()))
        counts = np.frombuffer(file.read(8 * recipe.vocab_size), "<i8")
        if zlib.crc32(counts.data, check) != expected:
            raise _Damaged("its checksum is wrong")
        if largest >= recipe.vocab_size:
            raise _Damaged(f"it has an id {largest}, of {recipe.vocab_size} symbols")
        found = _mapped(file, recipe, tokens, counts.astype(np.int64))
    if not np.array_equal(found.ids[: len(recipe.first)], recipe.first):
        raise _Damaged("its tokenizer has changed")
    with contextlib.suppress(OSError):
        os.utime(path)  # it is in use: see _tidy
    return found


def _read_header(file: IO[bytes], recipe: Recipe) -> tuple[int, int]:
    """Return how many ids a file holds, and its checksum."""
    header, crc = file.read(_HEADER.size), file.read(_CRC.size)
    if crc != _CRC.pack(zlib.crc32(header)):
        raise _Damaged("its header is damaged")
    magic, key, vocab_size, tokens, check = _HEADER.unpack(header)
    if (magic, key, vocab_size) != (_MAGIC, recipe.key, recipe.vocab_size):
        raise _Damaged("it is about another text")
    size = BEGIN + tokens * recipe.dtype.itemsize + 8 * vocab_size
    found = os.fstat(file.fileno()).st_size
    if found != size:
        raise _Damaged(f"it has {found:,} bytes, expected {size:,}")
    return tokens, check


def _blocks(file: IO[bytes], recipe: Recipe, tokens: int) -> Iterator[Ids]:
    """Read ids as a stream: pages that were only checked are not mapped."""
    left = tokens * recipe.dtype.itemsize
    while left:
        data = file.read(min(BLOCK, left))
        if not data:
            raise _Damaged("it became shorter")
        left -= len(data)
        yield np.frombuffer(data, recipe.dtype)


def _mapped(file: IO[bytes], recipe: Recipe, tokens: int, counts: NDArray[np.int64]) -> Encoded:
    """Map the ids of a file. They stay when it is closed, replaced or removed."""
    if not tokens:
        return Encoded(np.empty(0, recipe.dtype), counts)
    # Not as np.memmap itself: slices of that class take several times as long to make.
    return Encoded(np.asarray(np.memmap(file, recipe.dtype, "r", BEGIN, (tokens,))), counts)


def _tidy(folder: Path) -> None:
    """Remove what no run has used for a long time, and what killed ones left."""
    before = time.time() - KEEP
    for path in folder.iterdir():
        if SUFFIX in path.name:
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < before:
                    path.unlink()
