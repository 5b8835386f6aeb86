"""``xp`` while compiling: the Array API over `Traced`, one ONNX node a function where possible. (spox)

It has only functions that treat all rows alike; any other name raises RuleBroken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from gentext.export.strategies.facts import keeps_shape
from gentext.export.strategies.indexing import int_vector, select
from gentext.export.strategies.ordering import argsort, keep_largest, largest_per_symbol, sort
from gentext.export.strategies.reductions import REDUCTIONS
from gentext.export.strategies.rules import NO_VALUES, RuleBroken
from gentext.export.strategies.traced import (
    DType,
    Operand,
    Traced,
    apply_logical,
    apply_numeric,
    astype,
    checked_axis,
    constant,
    divide,
    equal,
    floor_divide,
    matched_operands,
    remainder,
)


def _make_unary(onnx_operator: Callable[[Var], Var]) -> Callable[[Traced], Traced]:
    return lambda x: Traced(onnx_operator(x.var))


def _make_float64_unary(onnx_operator: Callable[[Var], Var]) -> Callable[[Traced], Traced]:
    """Compute in float64: in float32, onnxruntime's result depends on the position of an element in the batch."""
    return lambda x: Traced(op.cast(onnx_operator(op.cast(x.var, to=np.float64)), to=x.dtype))


def _make_binary(onnx_operator: Callable[[Var, Var], Var]) -> Callable[[Operand, Operand], Traced]:
    return lambda left, right: apply_numeric(onnx_operator, left, right)


def _make_variadic_binary(onnx_operator: Callable[[Sequence[Var]], Var]) -> Callable[[Operand, Operand], Traced]:
    """Make a function of two arrays of an operator that takes a list of any length."""
    return lambda left, right: apply_numeric(lambda a, b: onnx_operator([a, b]), left, right)


def where(condition: Traced, x: Operand, y: Operand, /) -> Traced:
    if not isinstance(x, Traced) and not isinstance(y, Traced):
        dtype = np.float32 if isinstance(x, float) or isinstance(y, float) else None
        x = constant(x, dtype)
    if_true, if_false = matched_operands(x, y)
    if condition.facts.value is not None:
        chosen = Traced(if_true if condition.facts.value else if_false)
        operand = x if condition.facts.value else y
        if keeps_shape(chosen.shape, condition.shape, Traced(if_true).shape, Traced(if_false).shape):
            return operand if isinstance(operand, Traced) and operand.dtype == chosen.dtype else chosen
    return Traced(select(condition.var, if_true, if_false))


def cumulative_sum(
    x: Traced, /, *, axis: int | None = None, dtype: DType | None = None, include_initial: bool = False
) -> Traced:
    if include_initial:
        raise RuleBroken("xp.cumulative_sum(include_initial=True) cannot be compiled; use xp.concat with zeros")
    x = x if dtype is None else astype(x, dtype)
    axis = checked_axis(x, axis, "cumulative_sum")
    return Traced(op.cumsum(x.var, op.const(np.int64(axis))))


def take(x: Operand, indices: Operand, /, *, axis: int | None = None) -> Traced:
    x, indices = asarray(x), asarray(indices)
    if axis is None:
        raise RuleBroken("xp.take without axis: name it")
    axis = axis + x.ndim if axis < 0 else axis
    if x.shape[axis] is None and not x.shared:
        raise RuleBroken("xp.take along axis 0, the batch, would mix rows: use a later axis, or take from a table")
    return Traced(op.gather(x.var, indices.var, axis=axis))


def take_along_axis(x: Traced, indices: Traced, /, *, axis: int = -1) -> Traced:
    return Traced(op.gather_elements(x.var, indices.var, axis=checked_axis(x, axis, "take_along_axis")))


def concat(arrays: Sequence[Traced], /, *, axis: int | None = 0) -> Traced:
    axis = checked_axis(arrays[0], axis, "concat")
    return Traced(op.concat([array.var for array in arrays], axis=axis))


def stack(arrays: Sequence[Traced], /, *, axis: int = 0) -> Traced:
    axis = axis + arrays[0].ndim + 1 if axis < 0 else axis
    if axis == 0:
        raise RuleBroken("xp.stack along axis 0 would move the batch: use a later axis")
    return Traced(op.concat([op.unsqueeze(array.var, int_vector(axis)) for array in arrays], axis=axis))


def expand_dims(x: Traced, /, *, axis: int = 0) -> Traced:
    axis = axis + x.ndim + 1 if axis < 0 else axis
    return x[(*[slice(None)] * axis, None)]


def squeeze(x: Traced, /, axis: int) -> Traced:
    return Traced(op.squeeze(x.var, int_vector(checked_axis(x, axis, "squeeze"))))


def permute_dims(x: Traced, /, axes: Sequence[int]) -> Traced:
    if axes[0] != 0 and x.shape[0] is None:
        raise RuleBroken("xp.permute_dims must leave axis 0, the batch, in place")
    return Traced(op.transpose(x.var, perm=list(axes)))


def reshape(x: Traced, /, shape: Sequence[int], *, copy: bool = False) -> Traced:
    if x.shape and x.shape[0] is None and shape[0] != -1:
        raise RuleBroken("xp.reshape must leave axis 0, the batch: begin the shape with -1")
    return Traced(op.reshape(x.var, int_vector(*_checked_sizes(shape))))


def flip(x: Traced, /, *, axis: int) -> Traced:
    leading = [slice(None)] * checked_axis(x, axis, "flip")
    return x[(*leading, slice(None, None, -1))]


def roll(x: Traced, /, shift: int, *, axis: int) -> Traced:
    axis = checked_axis(x, axis, "roll")
    split = -shift % (x.shape[axis] or 1)
    leading = [slice(None)] * axis
    return concat([x[(*leading, slice(split, None))], x[(*leading, slice(None, split))]], axis=axis)


def full_like(x: Traced, /, fill_value: float, *, dtype: DType | None = None) -> Traced:
    fill_array = np.array([fill_value], x.dtype if dtype is None else dtype)
    return Traced(op.constant_of_shape(op.shape(x.var), value=fill_array))


def full(shape: int | Sequence[int], fill_value: float, *, dtype: DType | None = None) -> Traced:
    sizes = _checked_sizes(shape if isinstance(shape, tuple | list) else (shape,))
    return constant(np.full(sizes, fill_value), dtype)


def broadcast_to(x: Traced, /, shape: Sequence[int]) -> Traced:
    return Traced(op.expand(x.var, int_vector(*_checked_sizes(shape))))


def arange(start: int, /, stop: int | None = None, step: int = 1, *, dtype: DType | None = None) -> Traced:
    if isinstance(start, Traced) or isinstance(stop, Traced):
        raise RuleBroken(NO_VALUES)
    return constant(np.arange(*((start, stop) if stop is not None else (0, start)), step), dtype)


def asarray(operand: Operand, /, *, dtype: DType | None = None, copy: bool | None = None) -> Traced:
    if isinstance(operand, Traced):
        return operand if dtype is None else astype(operand, dtype)
    return constant(operand, dtype)


def _checked_sizes(shape: Sequence[Any]) -> list[int]:
    if any(not isinstance(size, int) for size in shape):
        raise RuleBroken(
            "a shape with the length of axis 0, the batch, which is not known; use zeros_like or full_like"
        )
    return list(shape)


def _clip(x: Traced, /, min: Operand = None, max: Operand = None) -> Traced:
    if min is not None:
        x = apply_numeric(lambda a, b: op.max([a, b]), x, min)
    return x if max is None else apply_numeric(lambda a, b: op.min([a, b]), x, max)


def _isfinite(x: Traced) -> Traced:
    return ~(Traced(op.isinf(x.var)) | Traced(op.isnan(x.var)))


class Namespace:
    """The functions and constants by their Array API names; looked up as attributes of ``xp``."""

    def __init__(self, members: dict[str, Any]) -> None:
        self.__dict__.update(members)

    def __getattr__(self, name: str) -> Any:
        raise RuleBroken(f"xp.{name} is not among the functions that can be compiled: {', '.join(sorted(vars(self)))}")


_CONSTANTS = {"inf": float("inf"), "nan": float("nan"), "pi": np.pi, "e": np.e, "newaxis": None}
_DTYPES = {name: np.dtype(name) for name in ("float32", "float64", "int32", "int64", "int8", "uint8", "bool")}
_UNARY_FUNCTIONS = {
    "exp": _make_unary(op.exp),
    "sqrt": _make_unary(op.sqrt),
    "tanh": _make_unary(op.tanh),
    "floor": _make_unary(op.floor),
    "ceil": _make_unary(op.ceil),
    "round": _make_unary(op.round),
    "abs": _make_unary(op.abs),
    "sign": _make_unary(op.sign),
    "negative": _make_unary(op.neg),
    "reciprocal": _make_unary(op.reciprocal),
    "isnan": _make_unary(op.isnan),
    "isinf": _make_unary(op.isinf),
    "logical_not": _make_unary(op.not_),
    "log": _make_float64_unary(op.log),
    "sin": _make_float64_unary(op.sin),
    "cos": _make_float64_unary(
        lambda x: op.sin(op.add(x, op.const(np.float64(np.pi / 2))))
    ),  # there is no cos of float64
}
_BINARY_FUNCTIONS = {
    "add": _make_binary(op.add),
    "subtract": _make_binary(op.sub),
    "multiply": _make_binary(op.mul),
    "pow": _make_binary(op.pow),
    "matmul": _make_binary(op.matmul),
    "less": _make_binary(op.less),
    "less_equal": _make_binary(op.less_or_equal),
    "greater": _make_binary(op.greater),
    "greater_equal": _make_binary(op.greater_or_equal),
    "maximum": _make_variadic_binary(op.max),
    "minimum": _make_variadic_binary(op.min),
    "divide": divide,
    "floor_divide": floor_divide,
    "remainder": remainder,
    "equal": equal,
    "not_equal": lambda a, b: ~equal(a, b),
    "logical_and": lambda a, b: apply_logical(op.and_, op.bitwise_and, a, b),
    "logical_or": lambda a, b: apply_logical(op.or_, op.bitwise_or, a, b),
    "logical_xor": lambda a, b: apply_logical(op.xor, op.bitwise_xor, a, b),
}
#: The argument ``xp`` of every method of a strategy while it is compiled.
xp: Namespace = Namespace(
    _CONSTANTS
    | _DTYPES
    | _UNARY_FUNCTIONS
    | _BINARY_FUNCTIONS
    | REDUCTIONS
    | {
        function.__name__: function
        for function in (
            *(astype, where, sort, argsort, keep_largest, largest_per_symbol, cumulative_sum, take, take_along_axis),
            *(concat, stack, expand_dims, squeeze, permute_dims, reshape, flip, roll),
            *(full_like, full, broadcast_to, arange, asarray),
        )
    }
    | {
        "clip": _clip,
        "isfinite": _isfinite,
        "square": lambda x: x * x,
        "log1p": lambda x: xp.log(x + 1.0),
        "expm1": lambda x: xp.exp(x) - 1.0,
        "log2": lambda x: xp.log(x) * float(1 / np.log(2)),
        "zeros_like": lambda x, dtype=None: full_like(x, 0, dtype=dtype),
        "ones_like": lambda x, dtype=None: full_like(x, 1, dtype=dtype),
        "zeros": lambda shape, dtype=np.float32: full(shape, 0, dtype=dtype),
        "ones": lambda shape, dtype=np.float32: full(shape, 1, dtype=dtype),
    }
)
