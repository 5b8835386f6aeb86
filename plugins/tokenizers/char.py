"""The tokenizer char: one symbol for each Unicode code point of the text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.config import Positive
from gentext.errors import CorpusError, PrimeError, RunError
from gentext.interfaces import Ids

#: The text of the unknown symbol.
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclasses.dataclass(frozen=True)
class CharConfig:
    """Options of the tokenizer ``char``."""

    min_count: Positive = 1
    """Characters that occur fewer times in the corpus share one unknown symbol."""


class CharTokenizer:
    """Code points to ids 0..V-1, in code point order; the unknown symbol, if any, comes last."""

    Config = CharConfig

    def __init__(self, symbols: str, with_unknown: bool) -> None:
        self._symbols = symbols
        self.unknown = len(symbols) if with_unknown else None
        self.vocab_size = len(symbols) + with_unknown
        #: Code point -> id; len(symbols) for those without a symbol, also in the last element, for all beyond it.
        self._id_by_code_point = np.full(ord(symbols[-1]) + 2, len(symbols), np.min_scalar_type(len(symbols)))
        self._id_by_code_point[_code_points(symbols)] = np.arange(len(symbols))

    @classmethod
    def build(cls, chunks: Iterable[str], config: CharConfig) -> CharTokenizer:
        """Learn the symbols of a text. Raises CorpusError when none would be left."""
        counts = np.zeros(0x110000, np.int64)
        for chunk in chunks:
            chunk_counts = np.bincount(_code_points(chunk))
            counts[: len(chunk_counts)] += chunk_counts
        frequent_code_points = np.flatnonzero(counts >= config.min_count)
        if not len(frequent_code_points):
            raise CorpusError(f"no character stands {config.min_count} times in the text; lower tokenizer.min_count")
        is_rare = (counts > 0) & (counts < config.min_count)
        return cls("".join(map(chr, frequent_code_points)), with_unknown=bool(is_rare.any()))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> CharTokenizer:
        symbols, with_unknown = state.get("symbols"), state.get("unknown", False)
        if not isinstance(symbols, str) or not symbols or list(symbols) != sorted(set(symbols)):
            raise RunError("the char tokenizer's state is damaged: expected its symbols as sorted text")
        if _has_surrogate(symbols):
            raise RunError("the char tokenizer's state is damaged: a symbol is half a character")
        return cls(symbols, bool(with_unknown))

    def state(self) -> dict[str, Any]:
        return {"symbols": self._symbols, "unknown": self.unknown is not None}

    def encode(self, text: str) -> Ids:
        ids = self._look_up_ids(text)
        if self.unknown is None:
            is_unknown = ids == len(self._symbols)
            if is_unknown.any():
                first_position = int(is_unknown.argmax())
                raise PrimeError(
                    f"{int(is_unknown.sum())} characters are not among the model's {self.vocab_size} symbols, "
                    f"first {text[first_position]!r} at position {first_position}"
                )
        return ids.astype(np.min_scalar_type(self.vocab_size - 1), copy=False)

    def unknown_at(self, text: str) -> list[int]:
        return [int(position) for position in np.flatnonzero(self._look_up_ids(text) == len(self._symbols))]

    def _look_up_ids(self, text: str) -> Ids:
        """Return ids [len], with len(symbols) for every character that has none."""
        return self._id_by_code_point.take(_code_points(text), mode="clip")

    def token_bytes(self, token: int) -> bytes:
        return (REPLACEMENT if token == self.unknown else self._symbols[token]).encode()


def _has_surrogate(text: str) -> bool:
    """Return whether a text has a surrogate code point: half a character, which no UTF-8 file can hold."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _code_points(text: str) -> NDArray[np.uint32]:
    # Lone surrogates cannot come from a file, but can from a command line.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
