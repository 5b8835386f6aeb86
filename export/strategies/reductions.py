"""The functions of ``xp`` that reduce an axis: sums, extremes and their indices. (spox)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from gentext.export.strategies.indexing import int_vector
from gentext.export.strategies.traced import DType, Traced, astype, checked_axis

#: The axis or axes of a reduction; None, which would reduce over the batch too, raises RuleBroken.
Axes = int | tuple[int, ...] | None


class _Reduction(Protocol):
    """An operator that reduces some axes, given as a constant."""

    def __call__(self, data: Var, axes: Var, /, *, keepdims: int) -> Var: ...


class _IndexReduction(Protocol):
    """An operator that finds an index along one axis."""

    def __call__(self, data: Var, /, *, axis: int, keepdims: int) -> Var: ...


def _checked_axes(x: Traced, axis: Axes, function_name: str) -> list[int]:
    """Return the axes of a reduction, of which none may be the batch."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    return [checked_axis(x, each_axis, function_name) for each_axis in axes]


def _make_reduction(name: str, onnx_operator: _Reduction) -> Callable[..., Traced]:
    def reduce(x: Traced, /, *, axis: Axes = None, keepdims: bool = False, dtype: DType | None = None) -> Traced:
        axes = _checked_axes(x, axis, name)
        if x.dtype == np.bool_:
            x = astype(x, np.int64)
        if dtype is not None:
            x = astype(x, dtype)
        return Traced(onnx_operator(x.var, int_vector(*axes), keepdims=int(keepdims)))

    return reduce


def _make_bool_reduction(name: str, onnx_operator: _Reduction) -> Callable[..., Traced]:
    def reduce(x: Traced, /, *, axis: Axes = None, keepdims: bool = False) -> Traced:
        axes = _checked_axes(x, axis, name)
        reduced_var = onnx_operator(op.cast(x.var, to=np.uint8), int_vector(*axes), keepdims=int(keepdims))
        return Traced(op.cast(reduced_var, to=np.bool_))

    return reduce


def _make_index_reduction(name: str, onnx_operator: _IndexReduction) -> Callable[..., Traced]:
    def find(x: Traced, /, *, axis: int | None = None, keepdims: bool = False) -> Traced:
        axis = checked_axis(x, axis, name)
        var = op.cast(x.var, to=np.uint8) if x.dtype == np.bool_ else x.var
        return Traced(onnx_operator(var, axis=axis, keepdims=int(keepdims)))

    return find


#: By their Array API names.
REDUCTIONS: dict[str, Callable[..., Traced]] = {
    "max": _make_reduction("max", op.reduce_max),
    "min": _make_reduction("min", op.reduce_min),
    "sum": _make_reduction("sum", op.reduce_sum),
    "prod": _make_reduction("prod", op.reduce_prod),
    "mean": _make_reduction("mean", op.reduce_mean),
    "any": _make_bool_reduction("any", op.reduce_max),
    "all": _make_bool_reduction("all", op.reduce_min),
    "argmax": _make_index_reduction("argmax", op.arg_max),
    "argmin": _make_index_reduction("argmin", op.arg_min),
}
