"""A step graph in 16-bit floats, for GPUs: weights and products of matrices; all else stays in 32 bits. (onnx)

The product that gives the logits stays in 32 bits too: it is small, and 16-bit floats near 10 are 0.008 apart.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gentext.errors import ExportError
from gentext.export.proto import copied

_PRODUCTS = {"MatMul", "Gemm"}


def halve(step: onnx.ModelProto) -> onnx.ModelProto:
    """Return the step with its matrix products in fp16; raise ExportError where there are none."""
    model = onnx.ModelProto()
    model.CopyFrom(step)
    graph = model.graph
    chosen = _chosen(graph)
    if not chosen:
        raise ExportError("fp16: the model's step has no matrix product with constant weights before its logits")
    weights = {node.input[1] for node in graph.node if node.output[0] in chosen}
    nodes = [made for node in graph.node for made in (_in_half(node) if node.output[0] in chosen else [copied(node)])]
    read = {name for node in nodes for name in node.input}
    constants = []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.name in weights:
            constants.append(numpy_helper.from_array(array.astype(np.float16), _half(tensor.name)))
        if tensor.name in read:
            constants.append(numpy_helper.from_array(array, tensor.name))
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    return model


def _chosen(graph: onnx.GraphProto) -> set[str]:
    """Return the outputs of the products to change: those with weights that 16 bits hold, but not the logits'."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    fits = {
        name
        for name, array in weights.items()
        if array.dtype == np.float32 and array.ndim == 2 and np.abs(array).max(initial=0) <= np.finfo(np.float16).max
    }
    products = {
        node.output[0]
        for node in graph.node
        if node.op_type in _PRODUCTS
        and node.input[1] in fits
        and not any(one.name == "beta" and one.f != 1 for one in node.attribute)
    }
    return products - _nearest_products(graph, "logits")


def _nearest_products(graph: onnx.GraphProto, name: str) -> set[str]:
    """Return the outputs of the products from which a value comes without another one between."""
    made_by = {output: node for node in graph.node for output in node.output}
    found: set[str] = set()
    seen, ahead = set(), [name]
    while ahead:
        value = ahead.pop()
        node = made_by.get(value)
        if node is None or value in seen:
            continue
        seen.add(value)
        if node.op_type in _PRODUCTS:
            found.add(value)
        else:
            ahead += node.input
    return found


def _in_half(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Yield a product in fp16. A bias is added in fp32."""
    given, weight, *bias = node.input
    result = node.output[0]
    yield helper.make_node("Cast", [given], [f"{result}.in"], to=TensorProto.FLOAT16)
    product = copied(node)
    product.input[:] = [f"{result}.in", _half(weight)]
    product.output[:] = [f"{result}.half"]
    yield product
    added = bias[0] if bias else ""
    yield helper.make_node("Cast", [f"{result}.half"], [f"{result}.wide" if added else result], to=TensorProto.FLOAT)
    if added:
        yield helper.make_node("Add", [f"{result}.wide", added], [result])


def _half(name: str) -> str:
    return f"{name}.fp16"
