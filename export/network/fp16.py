"""A step graph for GPUs: weights and matrix products in 16-bit floats, everything else in 32 bits. (onnx)

The product that gives the logits stays in 32 bits too: it is small, and 16-bit floats near 10 are 0.008 apart.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gentext.errors import ExportError
from gentext.export.proto import copy_model, copy_node, names_read, replace_initializers, replace_nodes

_PRODUCT_OPERATORS = {"MatMul", "Gemm"}


def to_fp16(step: onnx.ModelProto) -> onnx.ModelProto:
    """Return the step with its matrix products in fp16; raise ExportError where there are none."""
    model = copy_model(step)
    graph = model.graph
    product_names = _convertible_products(graph)
    if not product_names:
        raise ExportError("fp16: the model's step has no matrix product with constant weights before its logits")
    converted_weights = {node.input[1] for node in graph.node if node.output[0] in product_names}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes += _product_in_fp16(node) if node.output[0] in product_names else [copy_node(node)]

    used_names = {name for node in nodes for name in names_read(node)}
    initializers = []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.name in converted_weights:
            initializers.append(numpy_helper.from_array(array.astype(np.float16), _fp16_name(tensor.name)))
        if tensor.name in used_names:
            initializers.append(numpy_helper.from_array(array, tensor.name))
    replace_nodes(graph, nodes)
    replace_initializers(graph, initializers)
    return model


def _convertible_products(graph: onnx.GraphProto) -> set[str]:
    """Return the outputs of the products whose weights 16 bits can hold, except those that give the logits."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    convertible_weights = {
        name
        for name, array in weights.items()
        if array.dtype == np.float32 and array.ndim == 2 and np.abs(array).max(initial=0) <= np.finfo(np.float16).max
    }
    product_names = {
        node.output[0]
        for node in graph.node
        if node.op_type in _PRODUCT_OPERATORS
        and node.input[1] in convertible_weights
        and not any(attribute.name == "beta" and attribute.f != 1 for attribute in node.attribute)
    }
    return product_names - _nearest_products(graph, "logits")


def _nearest_products(graph: onnx.GraphProto, value_name: str) -> set[str]:
    """Return the outputs of the products that lead to a value without another product in between."""
    producers = {output_name: node for node in graph.node for output_name in node.output}
    product_names: set[str] = set()
    visited_names: set[str] = set()
    names_to_visit = [value_name]
    while names_to_visit:
        product_name = names_to_visit.pop()
        node = producers.get(product_name)
        if node is None or product_name in visited_names:
            continue
        visited_names.add(product_name)
        if node.op_type in _PRODUCT_OPERATORS:
            product_names.add(product_name)
        else:
            names_to_visit += node.input
    return product_names


def _product_in_fp16(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that compute a product in fp16. A bias is added in fp32."""
    activation_name, weight_name, *optional_bias_name = node.input
    result_name = node.output[0]
    bias_name = optional_bias_name[0] if optional_bias_name else ""
    yield helper.make_node("Cast", [activation_name], [f"{result_name}.in"], to=TensorProto.FLOAT16)
    product = copy_node(node)
    product.input[:] = [f"{result_name}.in", _fp16_name(weight_name)]
    product.output[:] = [f"{result_name}.half"]
    yield product
    yield helper.make_node(
        "Cast", [f"{result_name}.half"], [f"{result_name}.wide" if bias_name else result_name], to=TensorProto.FLOAT
    )
    if bias_name:
        yield helper.make_node("Add", [f"{result_name}.wide", bias_name], [result_name])


def _fp16_name(weight_name: str) -> str:
    return f"{weight_name}.fp16"
