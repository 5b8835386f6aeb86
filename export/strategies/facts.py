"""What is known of an array while a strategy is compiled, so that the graph leaves out what it cannot need. (spox)

A loop of a generator may be for calls in which some parameters have one value in all rows. There
``xp.where(params["range"] > 0.0, moving, fixed)`` is ``fixed``, and nothing computes ``moving``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v21 as op

from gentext.export.strategies.indexing import Shape


@dataclasses.dataclass(frozen=True)
class Facts:
    """What holds for every element of an array."""

    value: Any = None
    """The NumPy scalar that every element is equal to; None where there is none, or it is not known."""
    never: frozenset[float] = frozenset()
    """Numbers that no element is equal to."""

    def apply(self, numpy_function: Callable[[Any], Any]) -> Facts:
        """Return what holds after a function of each element."""
        return NO_FACTS if self.value is None else Facts(numpy_function(self.value))


NO_FACTS = Facts()

#: Operators whose results NumPy and onnxruntime agree on to the bit.
_NUMPY_FUNCTIONS: dict[Any, Callable[[Any, Any], Any]] = {
    op.add: np.add,
    op.sub: np.subtract,
    op.mul: np.multiply,
    op.equal: np.equal,
    op.less: np.less,
    op.less_or_equal: np.less_equal,
    op.greater: np.greater,
    op.greater_or_equal: np.greater_equal,
    op.and_: np.logical_and,
    op.or_: np.logical_or,
    op.xor: np.logical_xor,
}


def combine_facts(onnx_operator: Any, left: Facts, right: Facts) -> Facts:
    """Return what holds for the result of an operator of two arrays."""
    values = (left.value, right.value)
    if onnx_operator is op.equal and (right.value in left.never or left.value in right.never):
        return Facts(np.False_)
    if onnx_operator is op.and_ and any(value is not None and not value for value in values):
        return Facts(np.False_)
    if onnx_operator is op.or_ and any(value is not None and value for value in values):
        return Facts(np.True_)
    function = _NUMPY_FUNCTIONS.get(onnx_operator)
    if function is None or left.value is None or right.value is None:
        return NO_FACTS
    with np.errstate(all="ignore"):
        return Facts(function(left.value, right.value))


def keeps_shape(chosen: Shape, *operands: Shape) -> bool:
    """Return whether an array of shape ``chosen`` would keep its shape if it were broadcast with the operands."""
    sizes = [1] * (max(map(len, (chosen, *operands))) - len(chosen)) + list(chosen)
    for operand in operands:
        aligned = [1] * (len(sizes) - len(operand)) + list(operand)
        if any(size != operand_size and operand_size != 1 for size, operand_size in zip(sizes, aligned, strict=True)):
            return False
    return len(sizes) == len(chosen)
