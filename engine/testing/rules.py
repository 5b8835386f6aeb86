"""How the checks report a broken rule."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.errors import GenError, PluginError, reason


def require(is_kept: object, problem: str) -> None:
    """Raise AssertionError with the problem unless ``is_kept`` is true; with -O an assert statement does nothing."""
    if not is_kept:
        raise AssertionError(problem)


@contextlib.contextmanager
def report_broken_rules() -> Iterator[None]:
    """Turn gentext's own errors about a component that breaks a rule into an AssertionError with the same text."""
    try:
        yield
    except PluginError as error:
        raise AssertionError(str(error)) from error


@contextlib.contextmanager
def report_changed_arrays(name: str) -> Iterator[None]:
    """Turn NumPy's error about an array that may not be changed into an AssertionError; ``name`` is the component's."""
    try:
        yield
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise AssertionError(f"{name}: changes an array in place that is not its own ({reason(error)})") from error


def freeze(array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of an array that raises ValueError when it is changed in place."""
    copy = np.array(array)
    copy.flags.writeable = False
    return copy


def create(component: Any, *arguments: Any) -> Any:
    """Return ``component(*arguments)``; an error for the user, such as a text that is too short, gets the reason."""
    try:
        return component(*arguments)
    except GenError as error:
        raise AssertionError(f"{name_of(component)}: cannot be created ({reason(error)})") from error


def name_of(component: Any) -> str:
    """Return how messages name a component: a class, or a function that creates it."""
    return str(getattr(component, "__name__", component))
