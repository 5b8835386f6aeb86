"""Arrays that record each operation as an ONNX node: a strategy works on them while it is compiled. (spox)

Each operation becomes one node, or very few: a general-purpose tracer makes fifty of a maximum.
Operations that cannot be compiled, or would mix rows, raise RuleBroken with the rule in words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import spox.opset.ai.onnx.v21 as op
from numpy.typing import DTypeLike
from spox import Var

from gentext.export.strategies.facts import NO_FACTS, Facts, combine_facts
from gentext.export.strategies.indexing import Shape, index_array
from gentext.export.strategies.rules import NO_VALUES, RuleBroken

#: An array or a Python number. Authors may pass anything else, too: that raises RuleBroken.
Operand = Any
#: Everything that `numpy.dtype` understands.
DType = DTypeLike


class Traced:
    """An array of the graph that is being built. Axis 0 is the batch, of unknown length, where it is None."""

    __array_ufunc__ = None  # keeps NumPy's operators from treating this as a scalar object

    def __init__(self, var: Var, *, shared: bool = False, facts: Facts = NO_FACTS) -> None:
        """``shared`` marks a table: its open axes are not the batch, so they may be indexed."""
        self.var, self.shared, self.facts = var, shared, facts

    # -- attributes ----------------------------------------------------------------------------

    @property
    def dtype(self) -> np.dtype[Any]:
        return _numpy_dtype(self.var)

    @property
    def shape(self) -> Shape:
        shape = self.var.unwrap_tensor().shape
        assert shape is not None
        return tuple(size if isinstance(size, int) else None for size in shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getattr__(self, name: str) -> NoReturn:
        raise RuleBroken(f"arrays have no {name!r} here: use xp.{name}(x, ...) if the Array API has it")

    # -- operations that need values, which are not known while compiling --------------------

    def __bool__(self) -> NoReturn:
        raise RuleBroken(NO_VALUES)

    __int__ = __float__ = __index__ = __complex__ = __bool__

    def __len__(self) -> NoReturn:
        raise RuleBroken("len() of an array: axis 0 is the batch and has no known length; use shape[-1]")

    def __iter__(self) -> NoReturn:
        raise RuleBroken("a Python loop over an array; use operations on whole arrays")

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise RuleBroken("a NumPy function on an array of the graph; use xp.<name>")

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise RuleBroken("a change in place; build a new array, for example with xp.where")

    __hash__ = None  # type: ignore[assignment]

    # -- arithmetic -----------------------------------------------------------------------------

    def __add__(self, other: Operand) -> Traced:
        return apply_numeric(op.add, self, other)

    def __radd__(self, other: Operand) -> Traced:
        return apply_numeric(op.add, other, self)

    def __sub__(self, other: Operand) -> Traced:
        return apply_numeric(op.sub, self, other)

    def __rsub__(self, other: Operand) -> Traced:
        return apply_numeric(op.sub, other, self)

    def __mul__(self, other: Operand) -> Traced:
        return apply_numeric(op.mul, self, other)

    def __rmul__(self, other: Operand) -> Traced:
        return apply_numeric(op.mul, other, self)

    def __truediv__(self, other: Operand) -> Traced:
        return divide(self, other)

    def __rtruediv__(self, other: Operand) -> Traced:
        return divide(other, self)

    def __floordiv__(self, other: Operand) -> Traced:
        return floor_divide(self, other)

    def __mod__(self, other: Operand) -> Traced:
        return remainder(self, other)

    def __pow__(self, other: Operand) -> Traced:
        return apply_numeric(op.pow, self, other)

    def __rpow__(self, other: Operand) -> Traced:
        return apply_numeric(op.pow, other, self)

    def __neg__(self) -> Traced:
        return Traced(op.neg(self.var))

    def __abs__(self) -> Traced:
        return Traced(op.abs(self.var))

    def __matmul__(self, other: Traced) -> Traced:
        return apply_numeric(op.matmul, self, other)

    # -- comparison and logic ---------------------------------------------------------------

    def __lt__(self, other: Operand) -> Traced:
        return apply_numeric(op.less, self, other)

    def __le__(self, other: Operand) -> Traced:
        return apply_numeric(op.less_or_equal, self, other)

    def __gt__(self, other: Operand) -> Traced:
        return apply_numeric(op.greater, self, other)

    def __ge__(self, other: Operand) -> Traced:
        return apply_numeric(op.greater_or_equal, self, other)

    def __eq__(self, other: object) -> Traced:  # type: ignore[override]
        return equal(self, other)

    def __ne__(self, other: object) -> Traced:  # type: ignore[override]
        return ~(self == other)

    def __and__(self, other: Operand) -> Traced:
        return apply_logical(op.and_, op.bitwise_and, self, other)

    def __or__(self, other: Operand) -> Traced:
        return apply_logical(op.or_, op.bitwise_or, self, other)

    def __xor__(self, other: Operand) -> Traced:
        return apply_logical(op.xor, op.bitwise_xor, self, other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __invert__(self) -> Traced:
        if self.dtype != np.bool_:
            return Traced(op.bitwise_not(self.var))
        return Traced(op.not_(self.var), facts=self.facts.apply(np.logical_not))

    # -- indexing -----------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Traced:
        return Traced(index_array(self.var, self.shape, key if isinstance(key, tuple) else (key,)))


def _numpy_dtype(var: Var) -> np.dtype[Any]:
    return np.dtype(var.unwrap_tensor().dtype)


def constant(numbers: Any, dtype: DType | None = None) -> Traced:
    """Return a constant of the graph; a Python float becomes float32."""
    array = np.asarray(numbers, dtype)
    if array.dtype == np.float64 and dtype is None:
        array = array.astype(np.float32)
    return Traced(op.const(array))


def matched_operands(left: Operand, right: Operand) -> tuple[Var, Var]:
    """Return two operands in one dtype, by the rules of the Array API; a Python number takes the array's."""
    if isinstance(left, np.ndarray | np.generic):
        left = constant(left, left.dtype)
    if isinstance(right, np.ndarray | np.generic):
        right = constant(right, right.dtype)
    if not isinstance(left, Traced):
        left = _scalar_constant(left, right)
    if not isinstance(right, Traced):
        right = _scalar_constant(right, left)
    left_dtype, right_dtype = left.dtype, right.dtype
    if left_dtype == right_dtype:
        return left.var, right.var
    if left_dtype.kind != right_dtype.kind:
        raise RuleBroken(f"{left_dtype} meets {right_dtype}: cast one with xp.astype first")
    common_dtype = np.result_type(left_dtype, right_dtype)
    return op.cast(left.var, to=common_dtype), op.cast(right.var, to=common_dtype)


def _scalar_constant(number: Operand, array: Operand) -> Traced:
    """Return a Python number as a constant in the dtype of the array that it meets."""
    if not isinstance(number, bool | int | float):
        raise RuleBroken(f"an array meets {type(number).__name__}; use arrays and Python numbers")
    assert isinstance(array, Traced)
    dtype_kind = array.dtype.kind
    if isinstance(number, float) and dtype_kind != "f":
        raise RuleBroken(f"the float {number} meets an array of {array.dtype}: cast it with xp.astype first")
    if isinstance(number, bool) != (dtype_kind == "b"):
        raise RuleBroken(f"{number!r} meets an array of {array.dtype}: cast it with xp.astype first")
    return constant(number, array.dtype)


def apply_numeric(onnx_operator: Callable[[Var, Var], Var], left: Operand, right: Operand) -> Traced:
    """Apply an operator of numbers to two operands."""
    a, b = matched_operands(left, right)
    if _numpy_dtype(a) == np.bool_:
        raise RuleBroken("arithmetic on booleans: cast with xp.astype first")
    return Traced(onnx_operator(a, b), facts=_facts_of_result(onnx_operator, left, right))


def apply_logical(
    bool_operator: Callable[[Var, Var], Var], int_operator: Callable[[Var, Var], Var], left: Operand, right: Operand
) -> Traced:
    """Apply a logical operator to booleans, or the bitwise operator to integers."""
    a, b = matched_operands(left, right)
    onnx_operator = bool_operator if _numpy_dtype(a) == np.bool_ else int_operator
    return Traced(onnx_operator(a, b), facts=_facts_of_result(onnx_operator, left, right))


def equal(left: Operand, right: Operand) -> Traced:
    """Compare two operands of any type."""
    return Traced(op.equal(*matched_operands(left, right)), facts=_facts_of_result(op.equal, left, right))


def _facts_of_result(onnx_operator: Callable[[Var, Var], Var], left: Operand, right: Operand) -> Facts:
    dtype = next(operand.dtype for operand in (left, right) if isinstance(operand, Traced))
    return combine_facts(onnx_operator, _facts_of(left, dtype), _facts_of(right, dtype))


def _facts_of(operand: Operand, dtype: np.dtype[Any]) -> Facts:
    """Return what is known of an operand; a Python number has the type of the array that it meets."""
    if isinstance(operand, Traced):
        return operand.facts
    return Facts(dtype.type(operand)) if isinstance(operand, bool | int | float) else NO_FACTS


def divide(left: Operand, right: Operand) -> Traced:
    """Divide floats; ONNX would truncate integers."""
    a, b = matched_operands(left, right)
    if _numpy_dtype(a).kind != "f":
        raise RuleBroken("a division of integers: cast with xp.astype first, or use //")
    return Traced(op.div(a, b))


def remainder(left: Operand, right: Operand) -> Traced:
    """Return the remainder with the sign of the divisor, as Python does."""
    a, b = matched_operands(left, right)
    if _numpy_dtype(a).kind == "f":
        return Traced(op.sub(a, op.mul(op.floor(op.div(a, b)), b)))
    return Traced(op.mod(a, b))


def floor_divide(left: Operand, right: Operand) -> Traced:
    """Return the quotient rounded down, as Python does; ONNX would truncate integers."""
    a, b = matched_operands(left, right)
    if _numpy_dtype(a).kind == "f":
        return Traced(op.floor(op.div(a, b)))
    return Traced(op.div(op.sub(a, op.mod(a, b)), b))  # an exact division: nothing is truncated


def astype(x: Traced, dtype: DType, /, *, copy: bool = True) -> Traced:
    """Cast an array to another type."""
    if x.dtype == np.dtype(dtype):
        return x
    return Traced(op.cast(x.var, to=np.dtype(dtype)), facts=x.facts.apply(np.dtype(dtype).type))


def checked_axis(x: Traced, axis: int | None, function_name: str) -> int:
    """Return the axis counted from the front; raise RuleBroken where it is the batch, or is not named at all."""
    if axis is None:
        raise RuleBroken(f"xp.{function_name} without axis would mix the rows of the batch: name axis=1 or later")
    axis_from_front = int(axis) + (x.ndim if axis < 0 else 0)
    if not 0 <= axis_from_front < x.ndim:
        raise RuleBroken(f"xp.{function_name}: axis {axis} of an array with {x.ndim} axes")
    if x.shape[axis_from_front] is None:
        raise RuleBroken(f"xp.{function_name} over axis {axis}, the batch, would mix rows: use a later axis")
    return axis_from_front
