"""The links dry and no_repeat_ngram, against a plain search of the window; figures are in reference_figures.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from reference_figures import Steps, logits_of

from gentext.errors import ConfigError
from gentext.manager import host
from gentext.plugins.tokenizers.byte import ByteTokenizer
from gentext.plugins.tokenizers.char import CharTokenizer
from gentext.sampling.chain import build_chain

V = 7
TOKENS = st.lists(st.integers(0, 2), max_size=40)


def match_before(text: Sequence[int], index: int, breakers: Sequence[int] = ()) -> int:
    """Return how many symbols directly before an index equal the last symbols of a text."""
    length = 0
    while length < index and text[index - 1 - length] == text[-1 - length] and text[-1 - length] not in breakers:
        length += 1
    return length


@examples(200)
@given(TOKENS, st.integers(1, 4), st.integers(1, 12), st.sampled_from([(), (0,), (1, 2)]))
def test_dry_penalises_like_a_search_of_the_window(
    tokens: list[int], allowed_length: int, window: int, breakers: tuple[int, ...]
) -> None:
    numbers = {"dry_multiplier": 0.5, "dry_base": 1.5, "dry_allowed_length": allowed_length}
    steps = Steps("dry", options={"window": window}, **numbers)
    steps.tables["dry"]["breakers"][list(breakers)] = True
    steps.read(tokens)
    text = tokens[-window:]
    expected = np.zeros(V)
    for index, symbol in enumerate(text):
        length = match_before(text, index, breakers)
        if length >= allowed_length and symbol not in breakers:
            expected[symbol] = min(expected[symbol], -0.5 * 1.5 ** (length - allowed_length))
    np.testing.assert_allclose(steps.apply(np.zeros((1, V), np.float32))[0], expected, rtol=1e-5)


def test_a_penalty_of_dry_never_masks() -> None:
    steps = Steps("dry", dry_multiplier=100, dry_base=100, dry_allowed_length=1)
    steps.read([1] * 100)
    out = steps.apply(logits_of(0, 0.5, 0.25, 0.25, 0, 0, 0))
    assert out[0, 1] < -1e37 and np.isfinite(out[0, 1])
    assert np.array_equal(np.isfinite(out), [[False, True, True, True, False, False, False]])


def test_breakers_are_characters_within_symbols() -> None:
    def breakers(tokenizer: Any, **options: str) -> list[int]:
        chain = build_chain(host().registry, ["dry"], tokenizer.vocab_size, {"dry": options})
        return np.flatnonzero(chain.table_arrays(tokenizer)["dry"]["breakers"]).tolist()

    letters = CharTokenizer("\n:abn\u00e9", with_unknown=True)
    assert breakers(letters) == [0, 1], "the default has characters that this model does not know"
    assert breakers(letters, dry_sequence_breakers="a\u00e9") == [2, 5]
    assert breakers(letters, dry_sequence_breakers=r"\n") == [0], "an escape, and not a backslash and n"
    assert breakers(letters, dry_sequence_breakers="") == []
    assert breakers(ByteTokenizer(), dry_sequence_breakers=";") == [ord(";")]
    with pytest.raises(ConfigError, match="dry_sequence_breakers has '\u00e9', which the tokenizer writes as several"):
        breakers(ByteTokenizer(), dry_sequence_breakers="\u00e9")


@examples(200)
@given(TOKENS, st.integers(1, 4), st.integers(4, 12), st.sets(st.integers(0, V - 1), min_size=1))
def test_no_repeat_ngram_bans_like_a_search_of_the_window(
    tokens: list[int], size: int, window: int, unmasked: set[int]
) -> None:
    steps = Steps("no_repeat_ngram", options={"window": window}, no_repeat_ngram_size=size)
    steps.read(tokens)
    text = tuple(tokens[-window:])
    ngrams = {text[index : index + size] for index in range(len(text) - size + 1)}
    allowed = {symbol for symbol in unmasked if (*text[len(text) - size + 1 :], symbol) not in ngrams}
    logits = np.full((1, V), -np.inf, np.float32)
    logits[0, list(unmasked)] = 1
    out = steps.apply(logits)
    assert set(np.flatnonzero(np.isfinite(out[0])).tolist()) == (allowed or unmasked)


def test_an_ngram_must_fit_into_the_window() -> None:
    with pytest.raises(ConfigError, match=r"no_repeat_ngram_size = 9: expected a whole number from 0 up to 8"):
        Steps("no_repeat_ngram", options={"window": 8}, no_repeat_ngram_size=9)
