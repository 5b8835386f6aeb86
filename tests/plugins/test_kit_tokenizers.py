"""The check of gentext.testing for tokenizers finds each planted fault, and names its rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from planted import Fault, name_faults, plant

from gentext.plugins.tokenizers.byte import ByteTokenizer
from gentext.plugins.tokenizers.char import CharConfig, CharTokenizer
from gentext.testing import check_tokenizer


class Remembers(ByteTokenizer):
    """Its ids depend on what was encoded before."""

    calls = 0

    def encode(self, text: str) -> Any:
        self.calls += 1
        return super().encode(text + (" " if self.calls > 20 and text.endswith("log.\n") else ""))


class Counts(ByteTokenizer):
    """Its state changes with each text."""

    count = 0

    def encode(self, text: str) -> Any:
        self.count += 1
        return super().encode(text)

    def state(self) -> dict[str, Any]:
        return {"count": self.count // 1000 if self.count < 15 else self.count}


class BuiltAtRandom(CharTokenizer):
    """Learns another symbol each time."""

    builds = 0

    @classmethod
    def build(cls, chunks: Any, config: CharConfig) -> CharTokenizer:
        BuiltAtRandom.builds += 1
        return super().build([*chunks, chr(0x4E00 + BuiltAtRandom.builds)], config)


class ForgetsItsUnknown(CharTokenizer):
    """Loses the unknown symbol where it is saved."""

    def state(self) -> dict[str, Any]:
        return {**super().state(), "unknown": self.unknown is not None and len(self._symbols) > 1000}


class LearnsTheFirstPiece(CharTokenizer):
    """Does not read the whole text."""

    @classmethod
    def build(cls, chunks: Any, config: CharConfig) -> CharTokenizer:
        return super().build([next(iter(chunks))], config)


TOKENIZER_FAULTS: list[Fault] = [
    (plant(ByteTokenizer, vocab_size=256.0), "vocab_size 256.0; expected a whole number"),
    (plant(ByteTokenizer, token_bytes=lambda self, token: chr(token)), r"token_bytes\(0\) returned str"),
    (plant(ByteTokenizer, unknown=256), "the unknown token 256; expected an id"),
    (plant(ByteTokenizer, state=lambda self: {1: "a"}), "is not standard JSON .a key of a dict is no text"),
    (plant(ByteTokenizer, state=lambda self: {"rate": math.nan}), "is not standard JSON"),
    (plant(ByteTokenizer, state=lambda self: None), "returned NoneType, expected a dict"),
    (plant(ByteTokenizer, build=classmethod(lambda cls, chunks, config: None)), "build returned None"),
    (plant(ByteTokenizer, encode=lambda self, text: [float(byte) for byte in text.encode()]), "as whole numbers"),
    (plant(ByteTokenizer, encode=lambda self, text: np.arange(300)), "from 0 to 255"),
    (plant(ByteTokenizer, encode=lambda self, text: np.zeros(0, int)), "encode gives no ids"),
    (plant(ByteTokenizer, encode=lambda self, text: ByteTokenizer.encode(self, text.lower())), "bytes of the ids join"),
    (plant(ByteTokenizer, encode=lambda self, text: ByteTokenizer.encode(self, text + " ")), "bytes of the ids join"),
    (plant(ByteTokenizer, unknown_at=lambda self, text: [len(text)]), "expected rising positions in the text"),
    (plant(ByteTokenizer, unknown_at=lambda self, text: [0][: len(text)]), "it must raise PrimeError"),
    (plant(CharTokenizer, unknown_at=lambda self, text: []), "in which unknown_at finds nothing unknown"),
    (LearnsTheFirstPiece, "refuses the text that it was built from"),
    (Remembers, "other ids for .* when it is called again"),
    (Counts, "encode changes the state"),
    (BuiltAtRandom, "build gives another state"),
    (plant(CharTokenizer, state=lambda self: {"symbols": "abc"}), r"from_state\(state\(\)\) has 3 symbols"),
]


@pytest.mark.parametrize(**name_faults(TOKENIZER_FAULTS))
def test_fault_of_a_tokenizer_is_named(cls: type[Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_tokenizer(cls)


def test_fault_of_an_unknown_token_is_named() -> None:
    rare = CharConfig(min_count=2)
    with pytest.raises(AssertionError, match=r"has .* symbols, expected"):
        check_tokenizer(ForgetsItsUnknown, rare)
    knows_all = plant(CharTokenizer, unknown_at=lambda self, text: [])
    with pytest.raises(AssertionError, match=r"finds nothing in .*, but its ids have the unknown token"):
        check_tokenizer(knows_all, rare)


@pytest.mark.parametrize(
    ("cls", "config"), [(ByteTokenizer, None), (CharTokenizer, None), (CharTokenizer, CharConfig(min_count=3))]
)
def test_tokenizers_of_gentext_pass(cls: Any, config: Any) -> None:
    check_tokenizer(cls, config)
