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
from gentext.export.proto import check_graph, copy_node, int_attribute, replace_nodes

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
            f"export without unrolling"
        )
    inferred_graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    tensor_types = {
        value_info.name: value_info.type.tensor_type
        for value_info in [*inferred_graph.value_info, *inferred_graph.input]
    }
    # A CUDA graph needs a constant k. A computed k (see keep_largest) becomes the size of the axis, which changes
    # no result.
    size_by_k_name = {
        node.input[1]: _reduced_axis(node, tensor_types)[1] for node in model.graph.node if node.op_type == "TopK"
    }
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        output_name = node.output[0]
        if node.op_type == "ArgMax":
            nodes += _first_largest_nodes(node, tensor_types)
        elif output_name in size_by_k_name and node.op_type != "Constant":
            nodes.append(_constant_node(output_name, np.array([size_by_k_name[output_name]])))
        else:
            nodes.append(copy_node(node))
    replace_nodes(model.graph, nodes)
    check_graph(model)
    return model


def _reduced_axis(node: onnx.NodeProto, tensor_types: TensorTypes) -> tuple[int, int, int]:
    """Return the axis that a TopK or ArgMax works along, the size of the axis, and the number of axes."""
    dims = tensor_types[node.input[0]].shape.dim
    default_axis = -1 if node.op_type == "TopK" else 0
    axis = int_attribute(node, "axis", default_axis) % len(dims)
    if not dims[axis].dim_value:
        raise ExportError(f"a link has {node.op_type} along an axis of open size, which no GPU captures")
    return axis, dims[axis].dim_value, len(dims)


def _first_largest_nodes(node: onnx.NodeProto, tensor_types: TensorTypes) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that replace an ArgMax: the smallest index of an element that equals the largest.

    Where none equals it, as among NaN, they give the last index, so that the result is always an index.
    """
    axis, size, ndim = _reduced_axis(node, tensor_types)
    [input_name], [output_name] = node.input, node.output
    shape = [1] * ndim
    shape[axis] = size
    yield _constant_node(f"{output_name}.axis", np.array([axis]))
    yield _constant_node(f"{output_name}.places", np.arange(size).reshape(shape))
    yield _constant_node(f"{output_name}.last", np.array(size - 1))
    if tensor_types[input_name].elem_type not in (
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.INT64,
    ):
        yield helper.make_node("Cast", [input_name], [f"{output_name}.wide"], to=onnx.TensorProto.INT64)
        input_name = f"{output_name}.wide"
    keepdims = int_attribute(node, "keepdims", 1)
    yield helper.make_node("ReduceMax", [input_name, f"{output_name}.axis"], [f"{output_name}.top"], keepdims=1)
    yield helper.make_node("Equal", [input_name, f"{output_name}.top"], [f"{output_name}.there"])
    yield helper.make_node(
        "Where", [f"{output_name}.there", f"{output_name}.places", f"{output_name}.last"], [f"{output_name}.each"]
    )
    yield helper.make_node(
        "ReduceMin", [f"{output_name}.each", f"{output_name}.axis"], [output_name], keepdims=keepdims
    )


def _constant_node(name: str, array: NDArray[Any]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
