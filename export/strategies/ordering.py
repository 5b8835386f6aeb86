"""Sorting the symbols of a row, by ONNX's TopK, and the largest value of each. (spox)"""

from __future__ import annotations

import numpy as np
import spox.opset.ai.onnx.v21 as op
from spox import Var

from gentext.export.strategies.indexing import int_vector
from gentext.export.strategies.rules import RuleBroken
from gentext.export.strategies.traced import Traced, checked_axis


def _sort_with_indices(x: Traced, axis: int, descending: bool, function_name: str) -> tuple[Var, Var]:
    """Return the sorted values along an axis, and their indices."""
    axis = checked_axis(x, axis, function_name)
    # TopK with k = the size of the axis is a stable sort: equal values come in the order of their indices.
    sorted_values, indices = op.top_k(
        x.var, int_vector(x.shape[axis] or 0), axis=axis, largest=int(descending), sorted=1
    )
    return sorted_values, indices


def sort(x: Traced, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Traced:
    return Traced(_sort_with_indices(x, axis, descending, "sort")[0])


def argsort(x: Traced, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Traced:
    return Traced(_sort_with_indices(x, axis, descending, "argsort")[1])


def keep_largest(x: Traced, count: Traced, /) -> Traced:
    """Compile `gentext.strategy.keep_largest`.

    TopK computes max(count) entries; rows with a smaller count mask the surplus.
    """
    if not isinstance(count, Traced):
        raise RuleBroken(f"keep_largest: the count is {type(count).__name__}, expected an array int64 [N, 1]")
    vocab_size = x.shape[1]
    assert vocab_size is not None
    max_count = op.reshape(
        op.min([op.reduce_max(count.var, keepdims=0), op.const(np.int64(vocab_size))]), int_vector(1)
    )
    _, largest_indices = op.top_k(x.var, max_count, axis=1, largest=1, sorted=1)
    ranks = op.range(op.const(np.int64(0)), op.squeeze(max_count), op.const(np.int64(1)))
    # Take the batch size from `count` where possible: it does not change inside the loop, so hoisting can move
    # these nodes out.
    rows = op.slice(op.shape((count if count.shape[0] is None else x).var), int_vector(0), int_vector(1))
    keeps_none = op.constant_of_shape(op.concat([rows, int_vector(vocab_size)], axis=0), value=np.zeros(1, np.bool_))
    within_count = op.less(op.unsqueeze(ranks, int_vector(0)), count.var)
    within_count = op.expand(within_count, op.concat([rows, max_count], axis=0))
    return Traced(op.scatter_elements(keeps_none, largest_indices, within_count, axis=1))


def largest_per_symbol(values: Traced, symbols: Traced, vocab_size: int, initial: float, /) -> Traced:
    """Compile `gentext.strategy.largest_per_symbol`: one ScatterElements, however many symbols there are."""
    if not (isinstance(values, Traced) and isinstance(symbols, Traced)) or symbols.dtype != np.int64:
        raise RuleBroken("largest_per_symbol: expected the values float32 [N, W] and their symbols int64 [N, W]")
    is_symbol = (symbols >= 0) & (symbols < vocab_size)
    # What is ignored goes to one more column, which is cut off.
    columns = op.where(is_symbol.var, symbols.var, op.const(np.int64(vocab_size)))
    row = op.const(np.full((1, vocab_size + 1), initial, np.float32))
    floor = op.where(is_symbol[:, :1].var, row, row)  # gives [N, V + 1], whose second size is known while compiling
    largest = op.scatter_elements(floor, columns, values.var, axis=1, reduction="max")
    return Traced(largest)[:, :vocab_size]
