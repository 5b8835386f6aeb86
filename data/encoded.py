"""The ids of a text, in a file that is mapped into memory. It is written once, into a cache for later runs.

The file holds a header, the ids in the smallest unsigned type, and how often each occurs among
them. docs/formats.md has the bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
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
from gentext.files.folders import environment_folder
from gentext.interfaces import Ids
from gentext.run import atomic_write
from gentext.runs.removal import find_gentext_files

#: Version of the file. It is a part of the key, so a file of another version is never read.
FORMAT_VERSION = 1
#: Magic, key, number of symbols, number of ids, CRC-32 of everything after the header. `_CHECKSUM_FORMAT` follows.
_HEADER_FORMAT = struct.Struct("<12s32sQQI")
_MAGIC = b"gentext ids\n"
#: CRC-32 of the header.
_CHECKSUM_FORMAT = struct.Struct("<I")
#: Offset of the ids, in bytes; after the header the file has zeros up to here.
IDS_OFFSET = 128
FILE_SUFFIX = ".ids"
#: Names of the files here and of `gentext.data.record_summary`: the key's digest in hexadecimal, and a suffix.
_FILE_NAME = re.compile(rf"[0-9a-f]{{64}}({re.escape(FILE_SUFFIX)}|\.records)")
#: The folder of the files. It is gentext's own, unlike the folder that ``GEN_CACHE_DIR`` names.
CACHE_FOLDER = "encoded"
#: Number of bytes that are checked at once.
BLOCK_SIZE = 1 << 22
#: Seconds after which a file that no run has used is removed.
MAX_AGE_SECONDS = 30 * 24 * 3600


@dataclasses.dataclass(frozen=True)
class EncodedText:
    """The ids of a text, read-only, and how often each occurs among them (int64 [V])."""

    ids: Ids
    counts: NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class EncodingKey:
    """Everything on which the ids of a text depend."""

    parts: list[Any]
    """The text's hash, the tokenizer's name and state and the like, as JSON data."""
    vocab_size: int
    first_ids: Ids
    """The ids of the text's beginning: a tokenizer's code may have changed although its name and state have not."""

    @property
    def digest(self) -> bytes:
        """The SHA-256 that names the file."""
        parts = json.dumps([FORMAT_VERSION, self.vocab_size, *self.parts], sort_keys=True)
        return hashlib.sha256(parts.encode()).digest()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned type that holds all ids."""
        return np.min_scalar_type(self.vocab_size - 1).newbyteorder("<")


class _DamagedFileError(Exception):
    """A file of the cache cannot be used; the message is the reason."""


def cache_folder() -> Path:
    """Return the folder of encoded texts, in ``GEN_CACHE_DIR`` or else in the user's cache; it need not exist."""
    parent_folder = environment_folder("GEN_CACHE_DIR")
    if parent_folder is not None:
        return parent_folder / CACHE_FOLDER
    import pooch  # type: ignore[import-untyped]

    return Path(pooch.os_cache("gentext")) / CACHE_FOLDER


def encode_cached(key: EncodingKey, id_blocks: Iterable[Ids]) -> EncodedText:
    """Return a text's ids from the cache; where it has none, write them to it first.

    If the cache cannot be written, the ids go into a temporary file, or else into memory, and a line is printed on
    stderr. Raises CorpusError when memory is too small as well.

    :param id_blocks: the ids, block by block. It is iterated over once for each place that is tried.
    """
    folder = cache_folder()
    path = folder / (key.digest.hex() + FILE_SUFFIX)
    try:
        return _read_ids(path, key)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, _DamagedFileError) as error:
        say(f"{path}: cannot be used ({_describe_error(error)}); the text is encoded anew")
    try:
        return _write_to_cache(path, key, id_blocks)
    except (OSError, RunError) as error:
        say(
            f"{folder}: cannot be written ({_describe_error(error)}); "
            f"the encoded text goes into a temporary file this time"
        )
    try:
        with tempfile.TemporaryFile() as temporary_file:
            return _map_ids(temporary_file, key, *_write_ids(temporary_file, key, id_blocks))
    except OSError as error:
        say(f"no temporary file can be written ({_describe_error(error)}); the encoded text is kept in memory")
    try:
        memory_file = io.BytesIO()
        length, counts = _write_ids(memory_file, key, id_blocks)
        return EncodedText(np.frombuffer(memory_file.getvalue(), key.dtype, length, IDS_OFFSET), counts)
    except MemoryError:
        raise CorpusError(
            f"the encoded text fits neither {folder} nor memory; let GEN_CACHE_DIR name a folder with more room"
        ) from None


def _describe_error(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, RunError) else error
    return getattr(cause, "strerror", None) or str(error)


def _write_to_cache(path: Path, key: EncodingKey, id_blocks: Iterable[Ids]) -> EncodedText:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_old_files(path.parent)
    with atomic_write(path) as file:
        length, counts = _write_ids(file, key, id_blocks)
    with path.open("rb") as file:
        return _map_ids(file, key, length, counts)


def _write_ids(file: IO[bytes], key: EncodingKey, id_blocks: Iterable[Ids]) -> tuple[int, NDArray[np.int64]]:
    """Write a whole file; return the number of its ids, and how often each occurs.

    The header comes last, so that a file that was cut off has none.
    """
    counts = np.zeros(key.vocab_size, "<i8")
    checksum = length = 0
    file.write(bytes(IDS_OFFSET))
    for ids in id_blocks:
        id_block = ids.astype(key.dtype)
        file.write(id_block.data)
        checksum = zlib.crc32(id_block.data, checksum)
        length += len(id_block)
        counts += np.bincount(id_block, minlength=len(counts))
    file.write(counts.data)
    file.seek(0)
    header = _HEADER_FORMAT.pack(_MAGIC, key.digest, key.vocab_size, length, zlib.crc32(counts.data, checksum))
    file.write(header + _CHECKSUM_FORMAT.pack(zlib.crc32(header)))
    file.flush()
    return length, counts.astype(np.int64)


def _read_ids(path: Path, key: EncodingKey) -> EncodedText:
    """Map a file of the cache, after checking its size, its checksum and the range of its ids."""
    with path.open("rb") as file:
        length, expected_checksum = _read_header(file, key)
        file.seek(IDS_OFFSET)
        largest_id = checksum = 0
        for ids in _read_blocks(file, key, length):
            checksum = zlib.crc32(ids.data, checksum)
            largest_id = max(largest_id, int(ids.max()))
        counts = np.frombuffer(file.read(8 * key.vocab_size), "<i8")
        if zlib.crc32(counts.data, checksum) != expected_checksum:
            raise _DamagedFileError("its checksum is wrong")
        if largest_id >= key.vocab_size:
            raise _DamagedFileError(f"it has an id {largest_id}, of {key.vocab_size} symbols")
        text = _map_ids(file, key, length, counts.astype(np.int64))
    if not np.array_equal(text.ids[: len(key.first_ids)], key.first_ids):
        raise _DamagedFileError("its tokenizer has changed")
    with contextlib.suppress(OSError):
        os.utime(path)  # `_remove_old_files` goes by this time
    return text


def _read_header(file: IO[bytes], key: EncodingKey) -> tuple[int, int]:
    """Return the number of ids in a file, and its checksum."""
    header, header_checksum = file.read(_HEADER_FORMAT.size), file.read(_CHECKSUM_FORMAT.size)
    if header_checksum != _CHECKSUM_FORMAT.pack(zlib.crc32(header)):
        raise _DamagedFileError("its header is damaged")
    magic, digest, vocab_size, length, checksum = _HEADER_FORMAT.unpack(header)
    if (magic, digest, vocab_size) != (_MAGIC, key.digest, key.vocab_size):
        raise _DamagedFileError("it is about another text")
    expected_size = IDS_OFFSET + length * key.dtype.itemsize + 8 * vocab_size
    actual_size = os.fstat(file.fileno()).st_size
    if actual_size != expected_size:
        raise _DamagedFileError(f"it has {actual_size:,} bytes, expected {expected_size:,}")
    return length, checksum


def _read_blocks(file: IO[bytes], key: EncodingKey, length: int) -> Iterator[Ids]:
    """Read ids block by block. Mapping them instead would leave all their pages in memory."""
    bytes_left = length * key.dtype.itemsize
    while bytes_left:
        block = file.read(min(BLOCK_SIZE, bytes_left))
        if not block:
            raise _DamagedFileError("it became shorter")
        bytes_left -= len(block)
        yield np.frombuffer(block, key.dtype)


def _map_ids(file: IO[bytes], key: EncodingKey, length: int, counts: NDArray[np.int64]) -> EncodedText:
    """Map the ids of a file. They stay valid when the file is closed, replaced or removed."""
    if not length:
        return EncodedText(np.empty(0, key.dtype), counts)
    # Not as np.memmap itself: slices of that class take several times as long to make.
    return EncodedText(np.asarray(np.memmap(file, key.dtype, "r", IDS_OFFSET, (length,))), counts)


def _remove_old_files(folder: Path) -> None:
    """Remove files that no run has used for a long time, and temporary files of runs that were killed."""
    oldest_time = time.time() - MAX_AGE_SECONDS
    for path in find_gentext_files(folder, _FILE_NAME):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest_time:
                path.unlink()
