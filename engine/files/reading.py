"""Reads files and data whose size somebody else has chosen: no more than a limit is taken into memory.

Anything may stand where a file is expected: a device without end, a pipe that nobody writes to, or JSON that is nested
deeper than Python's stack. Errors are an OSError or a ValueError with words for the user, so that the caller, who knows
what the file is for, reports them as it reports those of the system.
"""

from __future__ import annotations

import errno
import json
import math
import stat
from pathlib import Path
from typing import IO, Any

#: Tables and lists within each other, at most. The config of a run has three levels.
MAX_DEPTH = 64
#: Bits of a whole number, at most. Longer ones overflow where they are computed with, or cannot even be printed.
MAX_INTEGER_BITS = 64


def read_stream(stream: IO[bytes], limit: int, name: str = "") -> bytes:
    """Return what is left of a stream, or raise OSError where that is more than ``limit`` bytes.

    ``name`` is that of the file in the error.
    """
    content = stream.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit / 2**20:g} MB", name or None)
    return content


def read_file(path: Path, limit: int) -> bytes:
    """Return the content of a file or a pipe, or raise OSError where it has more than ``limit`` bytes."""
    with path.open("rb") as file:
        return read_stream(file, limit, str(path))


def read_regular_file(path: Path, limit: int) -> bytes:
    """Do what `read_file` does for a file that gentext made: a pipe, at which one might wait for ever, is refused."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a folder has an error of its own
        raise OSError(errno.EINVAL, "a pipe, a device or a socket", str(path))
    return read_file(path, limit)


def parse_json(text: str | bytes) -> Any:
    """Return JSON as Python data, or raise ValueError where it is malformed, or has what `check_data` refuses."""
    try:
        data = json.loads(text, parse_float=_parse_finite, parse_constant=_parse_finite)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    check_data(data)
    return data


def _parse_finite(digits: str) -> float:
    """Return a number of JSON, or raise ValueError for NaN, Infinity and what is as large."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits[:20]}")
    return number


def check_data(data: object) -> None:
    """Raise ValueError for data of dicts and lists that is nested too deeply, or has a number of too many digits."""
    level = [data]
    for _ in range(MAX_DEPTH + 1):
        elements: list[object] = []
        for container in level:
            if isinstance(container, dict):
                elements += container.values()
            elif isinstance(container, list | tuple):
                elements += container
            elif isinstance(container, int) and container.bit_length() > MAX_INTEGER_BITS:
                raise ValueError(f"a whole number of more than {MAX_INTEGER_BITS} bits")
        level = elements
        if not level:
            return
    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
