"""The largest magnitudes of the values of a step graph, as far as they follow from the graph. (onnx)"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from gentext.exported.metadata import Bundle

#: The largest magnitude of all elements of a value [], or of those at each index of its last axis [size].
Bound = NDArray[np.float64]

#: How many standard deviations from the mean bound a normalised value. It may be larger, but hardly ever is.
NORMALISED_MAX = 6.0
UNBOUNDED, UNIT_BOUND = np.array(np.inf), np.array(1.0)
#: Operators that pass values on unchanged. Their inputs after the first are indices and sizes.
_MOVING_OPERATORS = {
    "Gather",
    "GatherND",
    "Split",
    "Reshape",
    "Unsqueeze",
    "Squeeze",
    "Slice",
    "Identity",
    "Transpose",
}


def find_bounds(graph: onnx.GraphProto, bundle: Bundle) -> dict[str, Bound]:
    """Return the bounds of all values that have one at every step.

    A state has the bound 1 when its initial values do and when, assuming that the states do, its next values do
    too. The search begins with all states whose initial values do, and drops those that fail until none does.
    """
    # A table has the bound 1 or none: one large row would make the scale of all others coarse.
    constant_bounds = {}
    for tensor in graph.initializer:
        magnitudes = np.abs(numpy_helper.to_array(tensor).astype(np.float64))
        if magnitudes.ndim < 2:
            constant_bounds[tensor.name] = magnitudes
        elif magnitudes.max(initial=0) <= 1:
            constant_bounds[tensor.name] = UNIT_BOUND
    last_sizes = _last_sizes(graph)
    bounded_states = {
        state.name for state in bundle.states if np.abs(state.initial_row().astype(np.float64)).max(initial=0) <= 1
    }
    while True:
        bounds = constant_bounds | dict.fromkeys(bounded_states, UNIT_BOUND)
        for node in graph.node:
            bound = _result_bound(node, bounds, last_sizes)
            if np.isfinite(bound).all():
                bounds |= dict.fromkeys(node.output if node.op_type == "Split" else node.output[:1], bound)
        still_bounded_states = {name for name in bounded_states if bounds.get(f"{name}_out", UNBOUNDED).max() <= 1}
        if still_bounded_states == bounded_states:
            return bounds
        bounded_states = still_bounded_states


def _last_sizes(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the sizes of the last axes of values, where the graph declares them."""
    dims_by_name = {value_info.name: value_info.type.tensor_type.shape.dim for value_info in graph.value_info}
    return {name: dims[-1].dim_value for name, dims in dims_by_name.items() if dims and dims[-1].dim_value}


def _result_bound(node: onnx.NodeProto, bounds: dict[str, Bound], last_sizes: dict[str, int]) -> Bound:
    """Return the bound of a node's results for those of its inputs; infinite where there is none."""
    inputs = [bounds.get(name, UNBOUNDED) for name in node.input if name]
    if node.op_type in ("Tanh", "Sigmoid"):
        return UNIT_BOUND
    if node.op_type == "LayerNormalization":
        _, scale, *shift = inputs
        return NORMALISED_MAX * scale + sum(shift)
    if node.op_type == "Mul":
        with np.errstate(invalid="ignore"):  # 0 * infinity
            return inputs[0] * inputs[1]
    if node.op_type == "Add":
        return inputs[0] + inputs[1]
    if node.op_type == "Concat":
        sizes = [last_sizes.get(name, 0) for name in node.input]
        if sum(sizes) == last_sizes.get(node.output[0]):  # along the last axis
            return np.concatenate([np.broadcast_to(bound, size) for bound, size in zip(inputs, sizes, strict=True)])
        return np.array(max(bound.max() for bound in inputs))
    return np.array(inputs[0].max()) if node.op_type in _MOVING_OPERATORS else UNBOUNDED
