"""The ranges of the options that `gentext.requests.declaration` declares, and the checks of them."""

from __future__ import annotations

import functools
import numbers
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

from gentext.arguments import declared
from gentext.errors import UsageError
from gentext.requests.spelling import Spelling


class Range(NamedTuple):
    """The whole numbers that an option may be."""

    least: int
    most: int | None
    allows_none: bool = False


@functools.cache
def ranges_of(kind: Any) -> dict[str, Range]:
    """Return the ranges of the options that are whole numbers."""
    return {
        name: Range(own.option.least, own.option.most, own.allows_none)
        for name, own in declared(kind).items()
        if own.option.least is not None
    }


def check_ranges(options: Mapping[str, object], ranges: Mapping[str, Range], spelling: Spelling) -> None:
    """Raise UsageError for an option that is no whole number of its range."""
    for name, (least, most, allows_none) in ranges.items():
        number = options[name]
        if number is None and allows_none:
            continue
        if not (is_whole(number) and least <= number and (most is None or number <= most)):
            end = "" if most is None else f" to {most}"
            raise UsageError(f"{spelling.assignment(name, number)}: expected a whole number from {least}{end}")


def is_whole(number: object) -> typing.TypeGuard[int]:
    return isinstance(number, numbers.Integral)
