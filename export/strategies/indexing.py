"""Indices and sizes as nodes of a graph. (spox)"""

from __future__ import annotations

from types import EllipsisType
from typing import Any

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from gentext.export.strategies.rules import RuleBroken

#: Sizes of an array; None is the batch, whose size is not known.
Shape = tuple[int | None, ...]
#: Beyond the end of every axis.
LARGEST_INDEX = int(np.iinfo(np.int64).max)


def int_vector(*numbers: int) -> Var:
    """Return a constant int64 vector, as ONNX's operators take axes and sizes."""
    return op.const(np.array(numbers, np.int64))


def select(condition: Var, if_true: Var, if_false: Var) -> Var:
    """Return the elements of one of two variables, as ONNX's Where does; onnxruntime has none for bool."""
    if if_false.unwrap_tensor().dtype != np.bool_:
        return op.where(condition, if_true, if_false)
    return op.or_(op.and_(condition, if_true), op.and_(op.not_(condition), if_false))


def index_array(var: Var, shape: Shape, key: tuple[Any, ...]) -> Var:
    """Return ``var[key]`` for slices, None, Ellipsis and whole numbers, on any axis but the batch.

    ``shape`` is that of ``var``, with None for the batch. Raises RuleBroken.
    """
    if not all(isinstance(selector, int | np.integer | slice | EllipsisType | None) for selector in key):
        raise RuleBroken("an array as an index: use xp.where for masks, xp.take or xp.take_along_axis for look-ups")
    key = _without_ellipsis(key, len(shape))
    axis, result_axis = 0, 0
    squeezed_axes: list[int] = []
    inserted_axes: list[int] = []
    slices: list[tuple[int, int, int, int]] = []
    for selector in key:
        if selector is None:
            inserted_axes.append(result_axis)
            result_axis += 1
            continue
        if selector != slice(None) and shape[axis] is None:
            raise RuleBroken("an index into axis 0, the batch: every row must be treated alike")
        if isinstance(selector, slice):
            if selector != slice(None):
                slices.append((axis, *_slice_bounds(selector)))
            result_axis += 1
        else:
            position = int(selector)
            slices.append((axis, position, position + 1 if position != -1 else LARGEST_INDEX, 1))
            squeezed_axes.append(axis)
        axis += 1
    if slices:
        sliced_axes, starts, ends, steps = zip(*slices, strict=True)
        var = op.slice(var, int_vector(*starts), int_vector(*ends), int_vector(*sliced_axes), int_vector(*steps))
    if squeezed_axes:
        var = op.squeeze(var, int_vector(*squeezed_axes))
    if inserted_axes:
        var = op.unsqueeze(var, int_vector(*inserted_axes))
    return var


def _without_ellipsis(key: tuple[Any, ...], ndim: int) -> tuple[Any, ...]:
    """Return a key with full slices in the place of its Ellipsis."""
    indexed_axes = sum(selector is not None and selector is not Ellipsis for selector in key)
    if indexed_axes > ndim:
        raise RuleBroken(f"{indexed_axes} indices for an array with {ndim} axes")
    if Ellipsis not in key:
        return key
    ellipsis_position = key.index(Ellipsis)
    return (*key[:ellipsis_position], *[slice(None)] * (ndim - indexed_axes), *key[ellipsis_position + 1 :])


def _slice_bounds(selector: slice) -> tuple[int, int, int]:
    """Return start, end and step of a slice as ONNX's Slice takes them."""
    step = 1 if selector.step is None else int(selector.step)
    default_start, default_end = (0, LARGEST_INDEX) if step > 0 else (LARGEST_INDEX, -LARGEST_INDEX)
    start = default_start if selector.start is None else int(selector.start)
    end = default_end if selector.stop is None else int(selector.stop)
    return start, end, step
