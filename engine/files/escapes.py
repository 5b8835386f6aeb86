"""Escapes in texts that a user types."""

from __future__ import annotations

import re

#: Escapes of Python's strings: of one letter or quote, octal up to 377, and hexadecimal.
ESCAPE = re.compile(
    r"""\\(?:[\\abfnrtv'"]|[0-3][0-7]{2}|[0-7]{1,2}"""
    r"|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4})"
)


def decode_escapes(text: str) -> str:
    r"""Replace escapes as Python has them, such as ``\n`` and ``\u00e9``; others stay as they are typed."""
    return ESCAPE.sub(lambda escape: escape[0].encode("ascii").decode("unicode_escape"), text)
