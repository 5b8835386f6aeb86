"""Arrays that record what is done to them, as ONNX nodes: what a strategy sees while it is compiled. (spox)

Each operation becomes one node, or very few: a general-purpose tracer makes fifty of a maximum.
What cannot be compiled, or would mix rows, raises RuleBroken with the rule in words.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

Shape = tuple[int | None, ...]


class RuleBroken(Exception):
    """A strategy did something that cannot be compiled; the text is the rule."""


NO_VALUES = (
    "a Python decision (if, while, int(), float(), range()) on the value of an array; values are not known "
    "while compiling, use xp.where"
)


class Traced:
    """An array of the graph that is being built. Axis 0 is the batch, of unknown length, where it is None."""

    __array_ufunc__ = None  # NumPy must not take over: its functions would see an object, not an array

    def __init__(self, var: Var, *, shared: bool = False) -> None:
        """``shared`` marks a table: its open axes are no batch, so they may be looked into."""
        self.var, self.shared = var, shared

    # -- what authors may ask ------------------------------------------------------------------

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.var.unwrap_tensor().dtype)

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

    # -- what has no answer while compiling ---------------------------------------------------

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

    def __add__(self, other: Any) -> Traced:
        return numeric(op.add, self, other)

    def __radd__(self, other: Any) -> Traced:
        return numeric(op.add, other, self)

    def __sub__(self, other: Any) -> Traced:
        return numeric(op.sub, self, other)

    def __rsub__(self, other: Any) -> Traced:
        return numeric(op.sub, other, self)

    def __mul__(self, other: Any) -> Traced:
        return numeric(op.mul, self, other)

    def __rmul__(self, other: Any) -> Traced:
        return numeric(op.mul, other, self)

    def __truediv__(self, other: Any) -> Traced:
        return divide(self, other)

    def __rtruediv__(self, other: Any) -> Traced:
        return divide(other, self)

    def __floordiv__(self, other: Any) -> Traced:
        return floor_divide(self, other)

    def __mod__(self, other: Any) -> Traced:
        return remainder(self, other)

    def __pow__(self, other: Any) -> Traced:
        return numeric(op.pow, self, other)

    def __rpow__(self, other: Any) -> Traced:
        return numeric(op.pow, other, self)

    def __neg__(self) -> Traced:
        return Traced(op.neg(self.var))

    def __abs__(self) -> Traced:
        return Traced(op.abs(self.var))

    def __matmul__(self, other: Traced) -> Traced:
        return numeric(op.matmul, self, other)

    # -- comparison and logic ---------------------------------------------------------------

    def __lt__(self, other: Any) -> Traced:
        return numeric(op.less, self, other)

    def __le__(self, other: Any) -> Traced:
        return numeric(op.less_or_equal, self, other)

    def __gt__(self, other: Any) -> Traced:
        return numeric(op.greater, self, other)

    def __ge__(self, other: Any) -> Traced:
        return numeric(op.greater_or_equal, self, other)

    def __eq__(self, other: object) -> Traced:  # type: ignore[override]
        return Traced(op.equal(*operands(self, other)))

    def __ne__(self, other: object) -> Traced:  # type: ignore[override]
        return ~(self == other)

    def __and__(self, other: Any) -> Traced:
        return logical(op.and_, op.bitwise_and, self, other)

    def __or__(self, other: Any) -> Traced:
        return logical(op.or_, op.bitwise_or, self, other)

    def __xor__(self, other: Any) -> Traced:
        return logical(op.xor, op.bitwise_xor, self, other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __invert__(self) -> Traced:
        return Traced(op.not_(self.var) if self.dtype == np.bool_ else op.bitwise_not(self.var))

    # -- indexing -----------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Traced:
        return index(self, key if isinstance(key, tuple) else (key,))


def constant(value: Any, dtype: Any = None) -> Traced:
    """Return a constant of the graph."""
    array = np.asarray(value, dtype)
    if array.dtype == np.float64 and dtype is None:
        array = array.astype(np.float32)
    return Traced(op.const(array))


def operands(left: Any, right: Any) -> tuple[Var, Var]:
    """Return two operands in one dtype, by the rules of the Array API; a Python number takes the array's."""
    if isinstance(left, np.ndarray | np.generic):
        left = constant(left, left.dtype)
    if isinstance(right, np.ndarray | np.generic):
        right = constant(right, right.dtype)
    if not isinstance(left, Traced):
        left = _scalar(left, right)
    if not isinstance(right, Traced):
        right = _scalar(right, left)
    a, b = left.dtype, right.dtype
    if a == b:
        return left.var, right.var
    if a.kind != b.kind:
        raise RuleBroken(f"{a} meets {b}: cast one with xp.astype first")
    wide = np.result_type(a, b)
    return op.cast(left.var, to=wide), op.cast(right.var, to=wide)


def _scalar(value: Any, beside: Any) -> Traced:
    if not isinstance(value, bool | int | float):
        raise RuleBroken(f"an array meets {type(value).__name__}; use arrays and Python numbers")
    assert isinstance(beside, Traced)
    kind = beside.dtype.kind
    if isinstance(value, float) and kind != "f":
        raise RuleBroken(f"the float {value} meets an array of {beside.dtype}: cast it with xp.astype first")
    if isinstance(value, bool) != (kind == "b"):
        raise RuleBroken(f"{value!r} meets an array of {beside.dtype}: cast it with xp.astype first")
    return constant(value, beside.dtype)


def numeric(make: Any, left: Any, right: Any) -> Traced:
    """Apply an operator of numbers to two operands."""
    a, b = operands(left, right)
    if np.dtype(a.unwrap_tensor().dtype) == np.bool_:
        raise RuleBroken("arithmetic on booleans: cast with xp.astype first")
    return Traced(make(a, b))


def logical(of_bools: Any, of_ints: Any, left: Any, right: Any) -> Traced:
    """Apply a logical operator to booleans, or its bitwise kin to integers."""
    a, b = operands(left, right)
    return Traced((of_bools if np.dtype(a.unwrap_tensor().dtype) == np.bool_ else of_ints)(a, b))


def divide(left: Any, right: Any) -> Traced:
    """Divide floats; ONNX would truncate integers."""
    a, b = operands(left, right)
    if np.dtype(a.unwrap_tensor().dtype).kind != "f":
        raise RuleBroken("a division of integers: cast with xp.astype first, or use //")
    return Traced(op.div(a, b))


def remainder(left: Any, right: Any) -> Traced:
    """The remainder with the divisor's sign, as Python has it."""
    a, b = operands(left, right)
    if np.dtype(a.unwrap_tensor().dtype).kind == "f":
        return Traced(op.sub(a, op.mul(op.floor(op.div(a, b)), b)))
    return Traced(op.mod(a, b))


def floor_divide(left: Any, right: Any) -> Traced:
    a, b = operands(left, right)
    if np.dtype(a.unwrap_tensor().dtype).kind == "f":
        return Traced(op.floor(op.div(a, b)))
    return Traced(op.div(op.sub(a, op.mod(a, b)), b))  # exact division truncates nothing


def axes(*values: int) -> Var:
    return op.const(np.array(values, np.int64))


def checked_axis(x: Traced, axis: Any, what: str) -> int:
    """Return a non-negative axis, or raise RuleBroken when it is the batch, or none was named."""
    if axis is None:
        raise RuleBroken(f"xp.{what} without axis would mix the rows of the batch: name axis=1 or later")
    at = int(axis) + (x.ndim if axis < 0 else 0)
    if not 0 <= at < x.ndim:
        raise RuleBroken(f"xp.{what}: axis {axis} of an array with {x.ndim} axes")
    if x.shape[at] is None:
        raise RuleBroken(f"xp.{what} over axis {axis}, the batch, would mix rows: use a later axis")
    return at


def index(x: Traced, key: tuple[Any, ...]) -> Traced:
    """Slices, None, Ellipsis and whole numbers, on any axis but the batch."""
    if any(isinstance(part, Traced | np.ndarray | list) for part in key):
        raise RuleBroken("an array as an index: use xp.where for masks, xp.take or xp.take_along_axis for look-ups")
    used = sum(part is not None and part is not Ellipsis for part in key)
    if used > x.ndim:
        raise RuleBroken(f"{used} indices for an array with {x.ndim} axes")
    if Ellipsis in key:
        at = key.index(Ellipsis)
        key = (*key[:at], *[slice(None)] * (x.ndim - used), *key[at + 1 :])
    var, axis, place = x.var, 0, 0
    squeeze: list[int] = []
    unsqueeze: list[int] = []
    cuts: list[tuple[int, int, int, int]] = []
    for part in key:
        if part is None:
            unsqueeze.append(place)
            place += 1
            continue
        if part != slice(None) and x.shape[axis] is None:
            raise RuleBroken("an index into axis 0, the batch: every row must be treated alike")
        if isinstance(part, slice):
            if part != slice(None):
                cuts.append((axis, *_bounds(part)))
            place += 1
        else:
            number = int(part)
            cuts.append((axis, number, number + 1 if number != -1 else np.iinfo(np.int64).max, 1))
            squeeze.append(axis)
        axis += 1
    if cuts:
        where, begin, end, step = zip(*cuts, strict=True)
        var = op.slice(var, axes(*begin), axes(*end), axes(*where), axes(*step))
    if squeeze:
        var = op.squeeze(var, axes(*squeeze))
    if unsqueeze:
        var = op.unsqueeze(var, axes(*unsqueeze))
    return Traced(var)


def _bounds(part: slice) -> tuple[int, int, int]:
    largest, step = np.iinfo(np.int64).max, 1 if part.step is None else int(part.step)
    begin = (0 if step > 0 else largest) if part.start is None else int(part.start)
    end = (largest if step > 0 else -largest) if part.stop is None else int(part.stop)
    return begin, end, step
