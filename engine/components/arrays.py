"""The type of an array that a component hands over."""

from __future__ import annotations

from typing import Any

import numpy as np

FLOAT32 = np.dtype(np.float32)


def has_type(array: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Return whether something is an array of that shape and type."""
    return isinstance(array, np.ndarray) and array.shape == shape and array.dtype == dtype


def type_of(array: object) -> str:
    """Return what an author must know of an array, or of what was returned in the place of one."""
    return f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
