"""The records that a model has learned from, as hashes: they tell whether a record is new.

A run keeps them beside its model, and never inside the exported file: who has them can tell whether a record was among
those to learn from.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gentext.errors import RunError
from gentext.files.atomic import write_bytes

#: Magic, version, number of hashes, CRC-32 of the hashes.
_HEADER = struct.Struct("<16sIQI")
_MAGIC, _VERSION = b"gentext hashes\n\0", 1
#: Offset of the hashes, in bytes.
_OFFSET = 64
#: Hashes that a `HashSet` gathers before it sorts them. A set of Python's takes about 70 bytes for each.
NEWEST_HASHES = 2**15


def hash_record(text: str) -> int:
    """Return the 64-bit hash of a record: BLAKE2b of its UTF-8 bytes, little-endian."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def write_hashes(path: Path, hashes: NDArray[np.uint64]) -> None:
    """Write the hashes of the records to learn from, uint64 [n], sorted and each once. Raises RunError."""
    array = np.unique(hashes).astype("<u8")
    header = _HEADER.pack(_MAGIC, _VERSION, len(array), zlib.crc32(array.data))
    write_bytes(path, header.ljust(_OFFSET, b"\0") + array.tobytes())


class KnownRecords:
    """The hashes of the records that a model has learned from, sorted: uint64 [n]."""

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        self.hashes = hashes

    @classmethod
    def read(cls, path: Path) -> KnownRecords:
        """Read the file of a run. Raises RunError where it is missing or damaged."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise RunError(
                f"{path}: missing; it tells which records are new, and comes with a run that learned from records"
            ) from None
        except OSError as error:
            raise RunError(f"{path}: cannot be read ({error.strerror})") from None
        problem = _find_problem(content)
        if problem:
            raise RunError(f"{path}: damaged ({problem}); train the run again")
        return cls(np.frombuffer(content, "<u8", offset=_OFFSET))

    def contain(self, texts: Iterable[str]) -> NDArray[np.bool_]:
        """Return for each text whether it was among the records, but for one chance in 2 ** 64 / n."""
        return _find_sorted(self.hashes, hash_records(texts))


class HashSet:
    """A set of 64-bit hashes that grows, in 16 bytes a hash at most: 8, and as many while blocks are joined.

    New hashes gather in a set of Python's. Where it is full they become a sorted block, and blocks of like size are
    joined, so that there are few of them.
    """

    def __init__(self) -> None:
        self._blocks: list[NDArray[np.uint64]] = []
        """Sorted, the largest first, each less than half as large as the one before."""
        self._newest: set[int] = set()

    def add(self, record_hash: int) -> None:
        """Add a hash."""
        self._newest.add(record_hash)
        if len(self._newest) < NEWEST_HASHES:
            return
        block = np.sort(np.fromiter(self._newest, np.uint64, len(self._newest)))
        self._newest.clear()
        while self._blocks and len(self._blocks[-1]) < 2 * len(block):
            block = np.concatenate([self._blocks.pop(), block])
            block.sort(kind="stable")  # which joins sorted parts
        self._blocks.append(block)

    def contain(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return for each of n hashes whether it is in the set: bool [n]."""
        contained = np.fromiter(map(self._newest.__contains__, hashes.tolist()), np.bool_, len(hashes))
        for block in self._blocks:
            contained |= _find_sorted(block, hashes)
        return contained


def hash_records(texts: Iterable[str]) -> NDArray[np.uint64]:
    """Return the hash of each record, see `hash_record`."""
    return np.fromiter(map(hash_record, texts), np.uint64)


def _find_sorted(block: NDArray[np.uint64], hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return for each of n hashes whether it is in a sorted block: bool [n]."""
    if not len(block):
        return np.zeros(len(hashes), np.bool_)
    places = np.minimum(np.searchsorted(block, hashes), len(block) - 1)
    return np.equal(block[places], hashes)


def _find_problem(content: bytes) -> str:
    """Return what is wrong with the content of a file of hashes, or nothing."""
    if len(content) < _OFFSET:
        return f"{len(content)} bytes"
    magic, version, count, checksum = _HEADER.unpack_from(content)
    if magic != _MAGIC:
        return "it is no file of hashes"
    if version != _VERSION:
        return f"version {version}, expected {_VERSION}"
    if len(content) != _OFFSET + 8 * count:
        return f"{len(content):,} bytes, expected {_OFFSET + 8 * count:,}"
    return "" if zlib.crc32(content[_OFFSET:]) == checksum else "its checksum is wrong"
