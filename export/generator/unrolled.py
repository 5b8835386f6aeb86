"""generator-unrolled.onnx: a fixed number of positions without control flow, as a GPU captures it. (onnx)

onnxruntime captures a graph only where it has no If, Loop or Scan and where its CUDA provider runs every
node that computes something: one node for the CPU is two copies, and refused. It has no ArgMax for
integers there, and makes no promise about which of equal elements the one for floats finds. No shape may
depend on a value: replayed, it would be that of the first call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from onnx import helper, numpy_helper

from gentext.errors import ExportError
from gentext.export.proto import copied

CONTROL_FLOW = {"If", "Loop", "Scan"}


def for_capture(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an unrolled generator as a GPU can capture it; raise ExportError where it cannot be so."""
    found = sorted({node.op_type for node in model.graph.node} & CONTROL_FLOW)
    if found:
        raise ExportError(
            f"the model's step has control flow ({', '.join(found)}), which no GPU captures; export without --unroll"
        )
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    kinds = {value.name: value.type.tensor_type for value in [*inferred.graph.value_info, *inferred.graph.input]}
    # How far a TopK looks is told by a constant, or counted where no result depends on it: see keep_largest.
    far = {node.input[1]: _axis(node, kinds)[1] for node in model.graph.node if node.op_type == "TopK"}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "ArgMax":
            nodes += _first_largest(node, kinds)
        elif node.output[0] in far and node.op_type != "Constant":
            nodes.append(_constant(node.output[0], np.array([far[node.output[0]]])))
        else:
            nodes.append(copied(node))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model


def _axis(node: onnx.NodeProto, kinds: Mapping[str, onnx.TypeProto.Tensor]) -> tuple[int, int, int]:
    """Return the axis that a node works along, its size, and how many axes there are."""
    shape = kinds[node.input[0]].shape.dim
    default = -1 if node.op_type == "TopK" else 0
    axis = next((one.i for one in node.attribute if one.name == "axis"), default) % len(shape)
    if not shape[axis].dim_value:
        raise ExportError(f"a link has {node.op_type} along an axis of open size, which no GPU captures")
    return axis, shape[axis].dim_value, len(shape)


def _first_largest(node: onnx.NodeProto, kinds: Mapping[str, onnx.TypeProto.Tensor]) -> Iterator[onnx.NodeProto]:
    """Yield an ArgMax as nodes that CUDA has: the smallest index at which the largest element stands.

    Where none equals it, as among NaN, the last index: one that exists.
    """
    axis, size, rank = _axis(node, kinds)
    [given], [index] = node.input, node.output
    places = np.arange(size).reshape([size if at == axis else 1 for at in range(rank)])
    yield _constant(f"{index}.axis", np.array([axis]))
    yield _constant(f"{index}.places", places)
    yield _constant(f"{index}.last", np.array(size - 1))
    if kinds[given].elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64):
        yield helper.make_node("Cast", [given], [f"{index}.wide"], to=onnx.TensorProto.INT64)
        given = f"{index}.wide"
    keep = next((one.i for one in node.attribute if one.name == "keepdims"), 1)
    yield helper.make_node("ReduceMax", [given, f"{index}.axis"], [f"{index}.top"], keepdims=1)
    yield helper.make_node("Equal", [given, f"{index}.top"], [f"{index}.there"])
    yield helper.make_node("Where", [f"{index}.there", f"{index}.places", f"{index}.last"], [f"{index}.each"])
    yield helper.make_node("ReduceMin", [f"{index}.each", f"{index}.axis"], [index], keepdims=keep)


def _constant(name: str, array: np.ndarray[Any, Any]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
