"""The check for filters: the same answer to the same text, whatever stands beside it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.components.filters import CheckedFilter
from gentext.config import config_class
from gentext.interfaces import Filter
from gentext.testing.rules import create, name_of, report_broken_rules, require

#: Called as ``target(config)``.
FilterFactory = Callable[[Any], Filter]
#: Texts that a model may write, of all lengths, most of them broken in the eyes of some filter.
TEXTS = [
    *("", " ", "cat", "Cat", "the cat sat\non the mat", "1 + 1 = 2", '"a, b";c', "a.b|c\\", "CC(=O)Oc1ccccc1C(=O)O"),
    *("(a[b]{c})", "((", ")(", "\x00\x7f", "Ångström, 東京", "e\N{COMBINING ACUTE ACCENT}", "\N{GRINNING FACE}"),
    *("\N{REPLACEMENT CHARACTER}", "x" * 10_000, "(" * 1_000),
]


def check_filter(
    cls: FilterFactory, config: Any = None, accepted: Sequence[str] = (), refused: Sequence[str] = ()
) -> None:
    """Check the rules for filters; AssertionError names the first that is broken.

    ``config`` defaults to ``cls.Config()``. ``accepted`` and ``refused`` are texts to which the filter must say True
    and False; it also gets some texts of all kinds.
    """
    name = name_of(cls)
    config = config_class(cls)() if config is None else config
    texts = [*accepted, *refused, *TEXTS]
    watched = _WatchedFilter(name, create(cls, config))
    answers = watched.answer(texts)
    for text, answer in zip([*accepted, *refused], answers, strict=False):
        is_accepted = text in accepted
        require(answer == is_accepted, f"{name}: answers {answer} to {text!r:.60}; expected {is_accepted}")
    watched.answer([])
    _require_same(name, texts, watched.answer(texts), answers, "when it is asked again")
    _check_batches(watched, texts, answers)
    created_again = _WatchedFilter(name, create(cls, config))
    _require_same(name, texts, created_again.answer(texts), answers, "when it is created again")


class _WatchedFilter:
    """A filter whose answers are checked, and what it does besides."""

    def __init__(self, name: str, texts_filter: Filter) -> None:
        self.name = name
        self._filter = texts_filter
        self._is_text_changed = False
        with report_broken_rules():
            self._checked_filter = CheckedFilter(name, texts_filter)
        self._checked_filter = CheckedFilter(name, self._call)

    def answer(self, texts: Sequence[str]) -> list[bool]:
        """Return the answers to the texts; AssertionError names a rule that is broken in this call."""
        with report_broken_rules(), contextlib.redirect_stdout(io.StringIO()) as printed:
            answers = self._checked_filter(texts)
        require(not self._is_text_changed, f"{self.name}: changes the list of texts that it gets")
        output = printed.getvalue()
        require(not output, f"{self.name}: prints {output!r:.60} on stdout, where the records go; use stderr")
        return answers

    def _call(self, texts: Sequence[str]) -> Sequence[bool] | NDArray[np.bool_]:
        texts_before = list(texts)
        try:
            return self._filter(texts)
        finally:
            self._is_text_changed |= list(texts) != texts_before


def _check_batches(watched: _WatchedFilter, texts: Sequence[str], answers: Sequence[bool]) -> None:
    """A text must get the same answer alone, in another order, among others and twice in a batch."""
    answers_alone = [watched.answer([text])[0] for text in texts]
    _require_same(watched.name, texts, answers_alone, answers, "alone")
    _require_same(watched.name, texts, watched.answer(texts[::-1])[::-1], answers, "in another order")
    _require_same(watched.name, texts, watched.answer([*texts, *texts])[len(texts) :], answers, "twice in a batch")
    for begin in range(0, len(texts), 3):
        batch = texts[begin : begin + 3]
        _require_same(watched.name, batch, watched.answer(batch), answers[begin:], "in another batch")


def _require_same(name: str, texts: Sequence[str], actual: Sequence[bool], expected: Sequence[bool], when: str) -> None:
    for text, answer, expected_answer in zip(texts, actual, expected, strict=False):
        require(
            answer == expected_answer,
            f"{name}: answers {answer} to {text!r:.60} {when}, and {expected_answer} before; its answer must depend "
            f"on the text alone",
        )
