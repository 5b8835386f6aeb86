"""A step graph for GPUs: weights and matrix products in 16-bit floats, everything else in 32 bits. (onnx)

The product that gives the logits stays in 32 bits too: it is small, and 16-bit floats near 10 are 0.008 apart.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gentext.errors import ExportError
from gentext.export.proto import copy_model, copy_node, replace_initializers, replace_nodes

_PRODUCTS = {"MatMul", "Gemm"}


def to_fp16(step: onnx.ModelProto) -> onnx.ModelProto:
    """Return the step with its matrix products in fp16; raise ExportError where there are none."""
    model = copy_model(step)
    graph = model.graph
    products = _convertible_products(graph)
    if not products:
        raise ExportError("fp16: the model's step has no matrix product with constant weights before its logits")
    converted_weights = {node.input[1] for node in graph.node if node.output[0] in products}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes += _product_in_fp16(node) if node.output[0] in products else [copy_node(node)]

    names_read = {name for node in nodes for name in node.input}
    constants = []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.name in converted_weights:
            constants.append(numpy_helper.from_array(array.astype(np.float16), _fp16_name(tensor.name)))
        if tensor.name in names_read:
            constants.append(numpy_helper.from_array(array, tensor.name))
    replace_nodes(graph, nodes)
    replace_initializers(graph, constants)
    return model


def _convertible_products(graph: onnx.GraphProto) -> set[str]:
    """Return the outputs of the products whose weights 16 bits can hold, except those that give the logits."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    convertible_weights = {
        name
        for name, array in weights.items()
        if array.dtype == np.float32 and array.ndim == 2 and np.abs(array).max(initial=0) <= np.finfo(np.float16).max
    }
    products = {
        node.output[0]
        for node in graph.node
        if node.op_type in _PRODUCTS
        and node.input[1] in convertible_weights
        and not any(attribute.name == "beta" and attribute.f != 1 for attribute in node.attribute)
    }
    return products - _nearest_products(graph, "logits")


def _nearest_products(graph: onnx.GraphProto, name: str) -> set[str]:
    """Return the outputs of the products that lead to a value without another product in between."""
    producers = {output: node for node in graph.node for output in node.output}
    products: set[str] = set()
    visited: set[str] = set()
    queue = [name]
    while queue:
        value = queue.pop()
        node = producers.get(value)
        if node is None or value in visited:
            continue
        visited.add(value)
        if node.op_type in _PRODUCTS:
            products.add(value)
        else:
            queue += node.input
    return products


def _product_in_fp16(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that compute a product in fp16. A bias is added in fp32."""
    activation, weight, *optional_bias = node.input
    result = node.output[0]
    bias = optional_bias[0] if optional_bias else ""
    yield helper.make_node("Cast", [activation], [f"{result}.in"], to=TensorProto.FLOAT16)
    product = copy_node(node)
    product.input[:] = [f"{result}.in", _fp16_name(weight)]
    product.output[:] = [f"{result}.half"]
    yield product
    yield helper.make_node("Cast", [f"{result}.half"], [f"{result}.wide" if bias else result], to=TensorProto.FLOAT)
    if bias:
        yield helper.make_node("Add", [f"{result}.wide", bias], [result])


def _fp16_name(name: str) -> str:
    return f"{name}.fp16"
