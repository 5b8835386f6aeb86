"""Features of the places in a text that a hidden unit may stand for: within quotes, before a line end, and more."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

#: Pairs of brackets, and quotes that open and close.
OPENING, CLOSING = "([{", ")]}"
#: Depths of brackets from this one on count as one.
MAX_DEPTH = 3
#: Columns of a line that count as one place, and how many such places there are.
PLACE_COLUMNS, PLACES = 10, 8
#: Places that each class of a feature must have, at least, for it to be measured.
MIN_COUNT = 20


@dataclasses.dataclass(frozen=True)
class Feature:
    """A feature of each place in a text: behind a character that was just read."""

    name: str
    meaning: str
    classes: NDArray[np.int64]
    """[characters] the class of each place, from 0."""


def text_features(text: str) -> list[Feature]:
    """Return the features of the place behind each character of a text, those that it has none of included."""
    pairs = [*zip(text, (text + " ")[1:], strict=True)]

    def feature(name: str, meaning: str, classify: Callable[[str, str], object]) -> Feature:
        return Feature(name, meaning, np.array([int(bool(classify(*pair))) for pair in pairs], np.int64))

    return [
        feature("line end", "a line end comes next", lambda _, following: following == "\n"),
        Feature("place in the line", f"tens of characters since the line began, up to {PLACES}", _line_places(text)),
        Feature("quotes", "within quotation marks", np.array([*_quote_states(text)], np.int64)),
        Feature("brackets", f"how deep in brackets, up to {MAX_DEPTH}", np.array([*_bracket_depths(text)], np.int64)),
        feature(
            "within a word", "letters on both sides", lambda last, following: last.isalpha() and following.isalpha()
        ),
        feature("word end", "a word ends here", lambda last, following: last.isalpha() and not following.isalpha()),
        feature("capital", "behind a capital letter", lambda last, _: last.isupper()),
        feature("capital next", "a capital letter comes next", lambda _, following: following.isupper()),
        feature("digit", "behind a digit", lambda last, _: last.isdigit()),
    ]


def is_measurable(classes: NDArray[np.int64]) -> bool:
    """Return whether a text has enough places of at least two classes."""
    return int((np.bincount(classes) >= MIN_COUNT).sum()) > 1 if len(classes) else False


def _line_places(text: str) -> NDArray[np.int64]:
    column, columns = 0, []
    for character in text:
        column = 0 if character == "\n" else column + 1
        columns.append(column)
    return np.minimum(np.array(columns, np.int64) // PLACE_COLUMNS, PLACES - 1)


def _quote_states(text: Sequence[str]) -> Iterator[int]:
    """Yield 1 within quotation marks, else 0. An empty line ends them, too: some are never closed."""
    is_quoted, last = False, ""
    for character in text:
        if character == '"':
            is_quoted = not is_quoted
        elif character in "“„«":
            is_quoted = True
        elif character in "”»" or character == last == "\n":
            is_quoted = False
        last = character
        yield int(is_quoted)


def _bracket_depths(text: Sequence[str]) -> Iterator[int]:
    depth = 0
    for character in text:
        depth = max(0, depth + (character in OPENING) - (character in CLOSING))
        yield min(depth, MAX_DEPTH)
