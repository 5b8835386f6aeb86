"""What orders the symbols of a row, by ONNX's TopK. (spox)"""

from __future__ import annotations

from typing import Any

import numpy as np
import spox.opset.ai.onnx.v21 as op

from gentext.export.strategies.traced import Traced, axes, checked_axis


def _sorted(x: Traced, axis: int, descending: bool, name: str) -> tuple[Any, Any]:
    at = checked_axis(x, axis, name)
    # TopK of all is a stable sort: equal values come in the order of their indices.
    return op.top_k(x.var, axes(x.shape[at] or 0), axis=at, largest=int(descending), sorted=1)


def sort(x: Traced, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Traced:
    return Traced(_sorted(x, axis, descending, "sort")[0])


def argsort(x: Traced, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Traced:
    return Traced(_sorted(x, axis, descending, "argsort")[1])


def keep_largest(x: Traced, count: Traced, /) -> Traced:
    """gentext.strategy.keep_largest. TopK looks as far as the largest count of any row; no result depends on it."""
    symbols = x.shape[1]
    assert symbols is not None
    most = op.reshape(op.min([op.reduce_max(count.var, keepdims=0), op.const(np.int64(symbols))]), axes(1))
    _, order = op.top_k(x.var, most, axis=1, largest=1, sorted=1)
    places = op.range(op.const(np.int64(0)), op.squeeze(most), op.const(np.int64(1)))
    # Of the count's rows where it has them, so that none of this is done at every position.
    rows = op.slice(op.shape((count if count.shape[0] is None else x).var), axes(0), axes(1))
    none = op.constant_of_shape(op.concat([rows, axes(symbols)], axis=0), value=np.zeros(1, np.bool_))
    inside = op.expand(op.less(op.unsqueeze(places, axes(0)), count.var), op.concat([rows, most], axis=0))
    return Traced(op.scatter_elements(none, order, inside, axis=1))
