"""The symbol between two records, which has no bytes, so that no text contains it.

A model of records reads it first and draws it last: it stands before each record, and behind it. It is added behind the
symbols of any tokenizer, which need not know of it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from gentext.values import Ids, Tokenizer

#: Characters of a record, at most.
MAX_RECORD = 2**31
#: Characters of the name of a layout, and of the header of a table, at most.
MAX_LAYOUT, MAX_HEADER = 2**12, 2**20


@dataclasses.dataclass(frozen=True)
class RecordsMeta:
    """What a model of records was trained on."""

    boundary: int
    """The token of the boundary symbol: the last one."""
    longest: int
    """Characters of the longest training record."""
    layout: str
    """How the records lay in their file, as ``--records`` names it."""
    header: str = ""
    """The header of a table whose rows are the records; else empty."""
    never_empty: bool = False
    """Whether no record is empty: the boundary symbol is then never drawn directly behind the one before a record.
    Files of older versions do not say so."""

    def find_problem(self, vocab_size: int) -> str | None:
        """Return what is wrong with these fields in a model of so many symbols, or None."""
        if self.boundary != vocab_size - 1:
            return f"the boundary symbol is {self.boundary}; expected the last of the {vocab_size} symbols"
        if not 0 <= self.longest <= MAX_RECORD:
            return f"the longest record has {self.longest} characters; expected 0 to {MAX_RECORD:,}"
        if len(self.layout) > MAX_LAYOUT or len(self.header) > MAX_HEADER:
            return f"the layout has {len(self.layout):,} characters and the header {len(self.header):,}: too many"
        return None


class BoundaryTokenizer:
    """A tokenizer with the boundary symbol behind its own symbols. Encoding a text never gives it."""

    def __init__(self, inner: Tokenizer) -> None:
        self.inner = inner

    @property
    def boundary(self) -> int:
        """The token of the boundary symbol."""
        return self.inner.vocab_size

    @property
    def vocab_size(self) -> int:
        return self.inner.vocab_size + 1

    @property
    def unknown(self) -> int | None:
        return self.inner.unknown

    def encode(self, text: str) -> Ids:
        return self.inner.encode(text)

    def unknown_at(self, text: str) -> list[int]:
        return self.inner.unknown_at(text)

    def token_bytes(self, token: int) -> bytes:
        return b"" if token == self.boundary else self.inner.token_bytes(token)

    def state(self) -> dict[str, Any]:
        return self.inner.state()
