"""The check of gentext.testing for filters finds each planted fault, and names its rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from planted import Fault, name_faults, plant

from gentext.testing import check_filter


class ShortTexts:
    """A filter that keeps the rules, for planted faults: no text is longer than 20 characters."""

    def __init__(self, config: object) -> None:
        self.texts_before = 0

    def __call__(self, texts: Sequence[str]) -> Any:
        return [len(text) <= 20 for text in texts]


class NotCalled:
    def __init__(self, config: object) -> None: ...


class AnswersAsArray(ShortTexts):
    def __call__(self, texts: Sequence[str]) -> Any:
        return np.array(super().__call__(texts), np.bool_)


class RemembersTexts(ShortTexts):
    """Refuses what it has seen before, as a filter of unique texts would."""

    def __call__(self, texts: Sequence[str]) -> Any:
        self.texts_before += len(texts)
        return [len(text) <= 20 and self.texts_before < 30 for text in texts]


class ComparesNeighbours(ShortTexts):
    """Accepts no text that is longer than all others of its batch."""

    def __call__(self, texts: Sequence[str]) -> Any:
        return [len(text) <= 20 and len(text) < max(map(len, texts)) for text in texts]


class RefusesRepetitions(ShortTexts):
    def __call__(self, texts: Sequence[str]) -> Any:
        return [len(text) <= 20 and texts.index(text) == number for number, text in enumerate(texts)]


class CountsItsObjects(ShortTexts):
    """Answers otherwise when it is created again."""

    objects = 0

    def __init__(self, config: object) -> None:
        CountsItsObjects.objects += 1
        self.number = CountsItsObjects.objects

    def __call__(self, texts: Sequence[str]) -> Any:
        return [len(text) <= 20 * self.number for text in texts]


class SortsTexts(ShortTexts):
    def __call__(self, texts: Any) -> Any:
        answers = super().__call__(texts)
        texts.sort()
        return answers


class Prints(ShortTexts):
    def __call__(self, texts: Sequence[str]) -> Any:
        print(len(texts), "texts")
        return super().__call__(texts)


class FailsOnBrackets(ShortTexts):
    def __call__(self, texts: Sequence[str]) -> Any:
        if "((" in texts:
            raise ValueError("unbalanced")
        return super().__call__(texts)


def answers(answer: Any) -> type[Any]:
    return plant(ShortTexts, __call__=lambda self, texts: answer(ShortTexts.__call__(self, texts)))


FILTER_FAULTS: list[Fault] = [
    (NotCalled, "is NotCalled; expected an object that is called with texts"),
    (answers(lambda good: None), "answers with NoneType; expected a list of booleans"),
    (answers(iter), "answers with list_iterator; expected a list of booleans"),
    (answers(lambda good: good[:-1]), "gives 20 answers to 21 texts; expected one for each text"),
    (answers(all), "answers with bool; expected a list of booleans"),
    (answers(lambda good: list(map(int, good))), "answers 1; expected True or False"),
    (answers(lambda good: np.array([good, good])[:, : len(good)].T), r"answers \[True, True\]; expected True or False"),
    (answers(lambda good: good or [True]), "gives 1 answers to 0 texts"),
    (answers(lambda good: good[::-1]), "answers False to 'short'; expected True"),
    (answers(lambda good: [True for _ in good]), "answers True to 'a text of 26 characters ..'; expected False"),
    (answers(lambda good: 1 // 0), r"fails on the text 'short': ZeroDivisionError: .*shows where"),
    (FailsOnBrackets, r"fails on the text '\(\(': ValueError: unbalanced"),
    (plant(ShortTexts, __call__=lambda self, texts: exit()), "ended the program"),
    (RemembersTexts, "when it is asked again, and .* before; its answer must depend on the text alone"),
    (ComparesNeighbours, "answers False to 'short' alone, and True before"),
    (RefusesRepetitions, "twice in a batch, and True before"),
    (CountsItsObjects, "when it is created again"),
    (SortsTexts, "changes the list of texts that it gets"),
    (Prints, "prints '21 texts.* on stdout, where the records go"),
]


@pytest.mark.parametrize(**name_faults(FILTER_FAULTS))
def test_fault_of_a_filter_is_named(cls: type[Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_filter(cls, accepted=["short"], refused=["a text of 26 characters .."])


@pytest.mark.parametrize("answer", [lambda index: index % 2 == 0, lambda index: index < 4])
def test_answers_that_depend_on_the_place_are_named(answer: Any) -> None:
    by_place = plant(ShortTexts, __call__=lambda self, texts: [answer(index) for index in range(len(texts))])
    with pytest.raises(AssertionError, match=r"alone|in another order"):
        check_filter(by_place)


@pytest.mark.parametrize("cls", [ShortTexts, AnswersAsArray])
def test_good_filters_pass(cls: Any) -> None:
    check_filter(cls, accepted=["short"], refused=["a text of 26 characters .."])
