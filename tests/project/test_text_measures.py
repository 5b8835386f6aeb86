"""The measures and the rule behind the defaults, research/text_measures.py and style_rule.py, on cases by hand."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path

import pytest
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "research"))
measures = importlib.import_module("text_measures")
rule = importlib.import_module("style_rule")


def test_words_are_runs_of_letters_in_lower_case() -> None:
    assert measures.words("Don't STOP,\nÄpfel_x 3rd!") == ["don", "t", "stop", "äpfel", "x", "rd"]


def test_real_words() -> None:
    assert measures.real_word_share("The cat, the czt!", {"the", "cat"}) == 0.75
    assert measures.real_word_share("123", set()) == 1.0


def test_repetition_counts_what_was_there_before() -> None:
    assert measures.repeated_share("abcd", 2) == 0  # ab bc cd
    assert measures.repeated_share("ababab", 2) == 3 / 5  # ab ba, then ab ba ab again
    assert measures.repeated_share("aaaa", 2) == 2 / 3
    assert measures.repeated_share("a", 2) == 0


def test_distance() -> None:
    assert measures.jensen_shannon_distance({"a": 2, "b": 6}, {"a": 1, "b": 3}) == 0
    assert measures.jensen_shannon_distance({"a": 1}, {"b": 5}) == 1
    # P = (1/2, 1/2), Q = (1, 0), M = (3/4, 1/4): H(M) - (1 + 0) / 2
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert measures.jensen_shannon_distance({"a": 1, "b": 1}, {"a": 7}) == pytest.approx(math.sqrt(entropy - 0.5))


def test_ngrams() -> None:
    assert measures.count_ngrams("abab", 2) == {"ab": 2, "ba": 1}
    assert measures.count_ngrams("a", 2) == {}


def test_novelty() -> None:
    # ab and bc are in the source, cx and xa are not; the longest copy is abc
    assert measures.compare_with_source("abcxab", "zabcz", 2) == (2 / 5, 3)
    assert measures.compare_with_source("xyz", "abc", 2) == (1.0, 0)
    assert measures.compare_with_source("bc", "abcd", 2) == (0.0, 2)
    # what begins at the end of the source does not go on in the text
    assert measures.compare_with_source("bb", "ab", 2) == (1.0, 1)
    with pytest.raises(ValueError, match="1 characters; expected at least 2"):
        measures.compare_with_source("a", "abc", 2)


@examples(50)
@given(st.text("ab€", min_size=3, max_size=40), st.text("ab€", min_size=0, max_size=40))
def test_novelty_is_that_of_plain_python(text: str, source: str) -> None:
    ngrams = [text[i : i + 3] for i in range(len(text) - 2)]
    spans = [text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)]
    share = sum(ngram not in source for ngram in ngrams) / len(ngrams)
    longest = max((len(span) for span in spans if span in source), default=0)
    novelty = measures.compare_with_source(text, source, 3)
    assert novelty.share == pytest.approx(share)
    assert novelty.longest_copy == longest


def setting(real_words: float, repetition: float, novelty: float, distance: float) -> dict[str, object]:
    """Return the measures of a setting with two models, of which the second one has fewer real words."""
    first = rule.Measures(real_words, repetition, novelty, 30, distance)
    return {"a": first, "b": rule.Measures(real_words - 0.1, repetition, novelty, 30, distance)}


def test_the_mean_of_measures() -> None:
    assert rule.mean([rule.Measures(1, 2, 3, 4, 5), rule.Measures(3, 4, 5, 6, 7)]) == rule.Measures(2, 3, 4, 5, 6)


def test_the_rule_chooses_within_its_bounds() -> None:
    held_out = setting(0.95, 0.004, 1.0, 0.0)
    settings_by_title = {
        "dull": setting(0.999, 0.0061, 0.97, 0.60),  # repeats itself too much, though it is near and has real words
        "tame": setting(0.99, 0.006, 0.98, 0.65),
        "near": setting(0.96, 0.004, 0.985, 0.62),
        "far": setting(0.921, 0.004, 0.99, 0.63),
        "wild": setting(0.919, 0.001, 0.999, 0.61),  # has too few real words
    }
    styles = rule.choose_styles(settings_by_title, held_out)
    assert styles == {"careful": "tame", "balanced": "near", "bold": "far"}


def test_a_bound_holds_with_each_model() -> None:
    held_out = setting(0.95, 0.004, 1.0, 0.0)
    weak = {**setting(0.99, 0.004, 1.0, 0.0), "b": rule.Measures(0.819, 0.0061, 1.0, 30, 0.0)}
    assert not rule.has_real_words(weak, held_out)
    assert not rule.repeats_little(weak, held_out)
    assert rule.has_real_words(held_out, held_out) and rule.repeats_little(held_out, held_out)
