"""generator-unrolled.onnx: a fixed number of positions without control flow, as a GPU captures it. (onnx)

onnxruntime captures a graph only if it has no If, Loop or Scan, and if its CUDA provider runs every node that
computes something: a node on the CPU means two copies, and the graph is refused. The provider has no ArgMax of
integers, and does not promise which of equal elements its ArgMax of floats finds. No shape may depend on a
value: replayed, it would be that of the first call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from gentext.errors import ExportError
from gentext.export.proto import copy_node, int_attribute, replace_nodes

CONTROL_FLOW = {"If", "Loop", "Scan"}

TensorTypes = Mapping[str, onnx.TypeProto.Tensor]


def make_capturable(model: onnx.ModelProto) -> onnx.ModelProto:
    """Change an unrolled generator so that a GPU can capture it, and return it.

    Raises ExportError where that is impossible.
    """
    control_flow = sorted({node.op_type for node in model.graph.node} & CONTROL_FLOW)
    if control_flow:
        raise ExportError(
            f"the model's step has control flow ({', '.join(control_flow)}), which no GPU captures; "
            f"export without --unroll"
        )
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    types = {value.name: value.type.tensor_type for value in [*inferred.value_info, *inferred.input]}
    # A CUDA graph needs a constant k. A computed k (see keep_largest) becomes the size of the axis, which changes
    # no result.
    sizes = {node.input[1]: _axis(node, types)[1] for node in model.graph.node if node.op_type == "TopK"}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        result = node.output[0]
        if node.op_type == "ArgMax":
            nodes += _first_largest(node, types)
        elif result in sizes and node.op_type != "Constant":
            nodes.append(_constant(result, np.array([sizes[result]])))
        else:
            nodes.append(copy_node(node))
    replace_nodes(model.graph, nodes)
    onnx.checker.check_model(model, full_check=True)
    return model


def _axis(node: onnx.NodeProto, types: TensorTypes) -> tuple[int, int, int]:
    """Return the axis that a TopK or ArgMax works along, the size of the axis, and the number of axes."""
    shape = types[node.input[0]].shape.dim
    default = -1 if node.op_type == "TopK" else 0
    axis = int_attribute(node, "axis", default) % len(shape)
    if not shape[axis].dim_value:
        raise ExportError(f"a link has {node.op_type} along an axis of open size, which no GPU captures")
    return axis, shape[axis].dim_value, len(shape)


def _first_largest(node: onnx.NodeProto, types: TensorTypes) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that replace an ArgMax: the smallest index of an element that equals the largest.

    Where none equals it, as among NaN, they give the last index, so that the result is always an index.
    """
    axis, size, ndim = _axis(node, types)
    [values], [result] = node.input, node.output
    shape = [1] * ndim
    shape[axis] = size
    yield _constant(f"{result}.axis", np.array([axis]))
    yield _constant(f"{result}.places", np.arange(size).reshape(shape))
    yield _constant(f"{result}.last", np.array(size - 1))
    if types[values].elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64):
        yield helper.make_node("Cast", [values], [f"{result}.wide"], to=onnx.TensorProto.INT64)
        values = f"{result}.wide"
    keepdims = int_attribute(node, "keepdims", 1)
    yield helper.make_node("ReduceMax", [values, f"{result}.axis"], [f"{result}.top"], keepdims=1)
    yield helper.make_node("Equal", [values, f"{result}.top"], [f"{result}.there"])
    yield helper.make_node("Where", [f"{result}.there", f"{result}.places", f"{result}.last"], [f"{result}.each"])
    yield helper.make_node("ReduceMin", [f"{result}.each", f"{result}.axis"], [result], keepdims=keepdims)


def _constant(name: str, array: NDArray[Any]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
