"""What is known of the records of a text without their tokens, kept in the cache so that they are read only once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.console import say
from gentext.data.encoded import cache_folder
from gentext.errors import RunError
from gentext.run import atomic_write

#: Version of the file. It is a part of the key, so a file of another version is never read.
FORMAT_VERSION = 1
SUMMARY_SUFFIX = ".records"


@dataclasses.dataclass(frozen=True)
class RecordSummary:
    """The records of a text, without those to learn from themselves."""

    header: str
    """The header of a table whose rows are the records; else empty."""
    longest: int
    """Characters of the longest record to learn from."""
    characters: int
    """Characters of all records to learn from."""
    broken: int
    """How many broken records were left out."""
    first_text: str
    """The first record to learn from."""
    hashes: NDArray[np.uint64]
    """uint64 [n]: the hashes of the records to learn from, sorted and each once."""
    repeats: NDArray[np.int64] | None
    """int64 [R]: how many times each record to learn from counts, in their order; None: each once."""
    val_texts: list[str]
    """The records that are held out, as far as they are measured."""
    val_repeats: NDArray[np.int64] | None
    """int64: how many times each of those counts; None: each once."""
    tokenizer_state: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The state of the tokenizer that has learned their symbols."""


#: The fields that are arrays, and the name of the array with the others as JSON. A .npz has a checksum of each.
_ARRAYS, _FIELDS = ("hashes", "repeats", "val_repeats"), "fields"


def load_summary(key: list[Any]) -> RecordSummary | None:
    """Return the summary of a key from the cache; None where the cache has none that can be used."""
    path = _path(key)
    try:
        with np.load(path, allow_pickle=False) as file:
            fields: dict[str, Any] = json.loads(file[_FIELDS].tobytes())
            fields |= {name: file.get(name, None) for name in _ARRAYS}
        os.utime(path)  # files that no run has used for long are removed
        return RecordSummary(**fields)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        say(f"{path}: cannot be used ({error}); the records are read anew")
        return None


def save_summary(key: list[Any], summary: RecordSummary) -> None:
    """Write a summary into the cache. Where that is not possible, the records are read anew the next time."""
    fields = {field.name: getattr(summary, field.name) for field in dataclasses.fields(summary)}
    arrays = {name: fields.pop(name) for name in _ARRAYS}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    arrays[_FIELDS] = np.frombuffer(json.dumps(fields).encode(), np.uint8)
    path = _path(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            np.savez(file, **arrays)
    except (OSError, RunError) as error:
        say(f"{path.parent}: cannot be written ({error}); the records are read anew the next time")


def _path(key: list[Any]) -> Path:
    digest = hashlib.sha256(json.dumps([FORMAT_VERSION, *key], sort_keys=True).encode())
    return cache_folder() / (digest.hexdigest() + SUMMARY_SUFFIX)
