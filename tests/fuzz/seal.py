"""The check of an exported file, made right again after a change: so that what lies behind it is tried too."""

from __future__ import annotations

import re
import zlib

#: The metadata entry with the check: its key, then a field of eight bytes. docs/formats.md describes it.
CHECK = re.compile(rb"gentext\.check\x12\x08([0-9a-f]{8})")


def seal(content: bytes) -> bytes:
    """Return a file with the check that fits its content: the CRC-32 of all bytes, its own digits counted as zeros."""
    match = CHECK.search(content)
    if match is None:
        return content
    first, end = match.span(1)
    crc = zlib.crc32(content[:first] + b"0" * 8 + content[end:])
    return content[:first] + f"{crc:08x}".encode() + content[end:]
