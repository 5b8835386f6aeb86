"""The tokenizer byte: one symbol for each byte of UTF-8, so that it can encode any text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gentext.config import NoConfig
from gentext.interfaces import Ids


class ByteTokenizer:
    """One symbol a byte; a character outside ASCII takes two to four of them."""

    Config = NoConfig
    vocab_size = 256
    unknown: int | None = None

    @classmethod
    def build(cls, chunks: Iterable[str], config: NoConfig) -> ByteTokenizer:
        return cls()

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ByteTokenizer:
        return cls()

    def state(self) -> dict[str, Any]:
        return {}

    def encode(self, text: str) -> Ids:
        return np.frombuffer(text.encode("utf-8", "replace"), np.uint8)

    def unknown_at(self, text: str) -> list[int]:
        return []

    def token_bytes(self, token: int) -> bytes:
        return bytes([token])
