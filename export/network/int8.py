"""A step graph in 8 bits: matrix products of integers. (onnx)

Weights get one scale a column, in 7 bits: on CPUs with AVX2 and without VNNI, sums of two products of 8-bit
numbers saturate, and those of 7-bit numbers cannot (255 * 63 * 2 < 2**15). The scale of an activation never depends
on the other rows of the batch. It is 1/127 for activations in [-1, 1], as an LSTM's hidden state is. Those with
another bound, such as a normalised layer, are divided by it first. All others have a scale for each row.

A table whose numbers are in [-1, 1], as the vectors of n-grams are, is stored in 8 bits with that same scale where
products alone read its rows: they lose nothing more by it, and no float is made of these rows on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from gentext.errors import ExportError
from gentext.export.network.bounds import UNBOUNDED, Bound, find_bounds
from gentext.export.proto import copy_model, copy_node, names_read, replace_initializers, replace_nodes
from gentext.exported.metadata import Bundle

#: Largest weight: 7 bits.
WEIGHT_MAX = 63
#: Largest activation, and what is added to all of them: they are stored without a sign.
ACTIVATION_MAX, ACTIVATION_ZERO = 127, 128
#: Smallest matrix worth quantising, in elements.
MIN_WEIGHT_SIZE = 1024

Constants = dict[str, NDArray[Any]]


def to_int8(step: onnx.ModelProto, bundle: Bundle) -> onnx.ModelProto:
    """Return the step with its matrix products in 8 bits; raise ExportError where there are none."""
    model = copy_model(step)
    graph = model.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    bounds = find_bounds(graph, bundle)
    constants: Constants = {
        "q.scale": np.array(1 / ACTIVATION_MAX, np.float32),
        "q.zero": np.array(ACTIVATION_ZERO, np.uint8),
        "q.zero8": np.array(0, np.int8),
        "q.tiny": np.array(1e-30, np.float32),
        "q.axis": np.array([-1], np.int64),
    }
    integer_names = _find_integers(graph, weights, bounds)
    nodes: list[onnx.NodeProto] = []
    product_count = 0
    for node in graph.node:
        weight = _constant_weight(node, weights)
        if node.output[0] in integer_names:
            constants |= _quantized_table(node, weights)
            nodes += _integer_nodes(node, integer_names)
        elif weight is None:
            nodes.append(node)
        else:
            product_count += 1
            bound = bounds.get(node.input[0])
            constants |= _quantized_weight(node.output[0], weight, bound)
            if node.input[0] in integer_names:
                nodes += _integer_product_nodes(node, node.input[0], [])
            else:
                nodes += _row_scale_nodes(node) if bound is None else _fixed_scale_nodes(node, bound)
    if not product_count:
        raise ExportError("int8: the model's step has no matrix product with constant weights")
    replace_nodes(graph, nodes)
    _drop_types(graph, integer_names)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    _drop_unused_initializers(graph)
    return model


def _find_integers(graph: onnx.GraphProto, weights: dict[str, NDArray[Any]], bounds: dict[str, Bound]) -> set[str]:
    """Return the values between tables and the products that read them, which need not become floats in between."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in names_read(node):
            readers.setdefault(name, []).append(node)
    output_names = {value_info.name for value_info in graph.output}
    integer_names: set[str] = set()
    for node in graph.node:
        if not _reads_small_numbers(node, weights):
            continue
        names = [node.output[0]]
        reader = _only_reader(readers, names[-1])
        while reader is not None and reader.op_type in ("Reshape", "Concat"):
            names.append(reader.output[0])
            reader = _only_reader(readers, names[-1])
        is_activation = reader is not None and _is_activation(names[-1], reader, weights)
        if is_activation and output_names.isdisjoint(names) and np.all(bounds.get(names[-1], UNBOUNDED) == 1):
            integer_names.update(names)
    return integer_names


def _only_reader(readers: dict[str, list[onnx.NodeProto]], name: str) -> onnx.NodeProto | None:
    """Return the node that reads a value, where there is exactly one."""
    nodes = readers.get(name, [])
    return nodes[0] if len(nodes) == 1 else None


def _is_activation(name: str, node: onnx.NodeProto, weights: dict[str, NDArray[Any]]) -> bool:
    """Return whether a node is a product to quantise, and a value its activation; its bias must stay a float."""
    return node.input[0] == name and _constant_weight(node, weights) is not None


def _reads_small_numbers(node: onnx.NodeProto, weights: dict[str, NDArray[Any]]) -> bool:
    """Return whether a node looks up rows of a constant matrix of numbers in [-1, 1]."""
    table = weights.get(node.input[0]) if node.op_type == "Gather" else None
    if table is None or table.ndim != 2 or table.size < MIN_WEIGHT_SIZE or table.dtype != np.float32:
        return False
    return bool(np.abs(table).max() <= 1)


def _quantized_table(node: onnx.NodeProto, weights: dict[str, NDArray[Any]]) -> Constants:
    """Return the table that a lookup reads, in 8 bits, and nothing for other nodes."""
    if node.op_type != "Gather":
        return {}
    table = np.rint(weights[node.input[0]] * ACTIVATION_MAX) + ACTIVATION_ZERO
    return {f"{node.input[0]}.q": table.astype(np.uint8)}


def _integer_nodes(node: onnx.NodeProto, integer_names: set[str]) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that look up, reshape or join activations in integers; some of those to join are floats yet."""
    integer_node = copy_node(node)
    if node.op_type == "Gather":
        integer_node.input[0] = f"{node.input[0]}.q"
    if node.op_type == "Concat":
        for position, name in enumerate(node.input):
            if name not in integer_names:
                integer_node.input[position] = f"{node.output[0]}.{position}"
                yield helper.make_node("QuantizeLinear", [name, "q.scale", "q.zero"], [integer_node.input[position]])
    yield integer_node


def _constant_weight(node: onnx.NodeProto, weights: dict[str, NDArray[Any]]) -> NDArray[np.float32] | None:
    """Return the constant matrix [in, out] of a product, or None when the node is something else."""
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in weights:
        return None
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    is_plain_product = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get(
        "transA", 0
    )
    weight = weights[node.input[1]]
    if not is_plain_product or weight.ndim != 2 or weight.size < MIN_WEIGHT_SIZE or weight.dtype != np.float32:
        return None
    return weight.T if attributes.get("transB", 0) else weight


def _quantized_weight(product_name: str, weight: NDArray[np.float32], bound: Bound | None) -> Constants:
    """Return a matrix [in, out] as integers, and the scale of each column of the product called ``product_name``.

    Activations with a ``bound`` are divided by it, and the rows of the matrix are multiplied with it.
    """
    row_factors = np.broadcast_to(np.float32(1) if bound is None else _divisor(bound), weight.shape[:1])
    weight = weight * row_factors[:, None]
    column_scales = np.maximum(np.abs(weight).max(axis=0), 1e-12) / WEIGHT_MAX
    integer_weight = np.rint(weight / column_scales).astype(np.int8)
    return {
        f"{product_name}.w": integer_weight,
        f"{product_name}.s": column_scales.astype(np.float32) / np.float32(ACTIVATION_MAX),
        f"{product_name}.f": 1 / row_factors,
    }


def _divisor(bound: Bound) -> NDArray[np.float32]:
    """Return the bound in float32, and a tiny number for 0, which nothing can be divided by."""
    return np.maximum(bound, 1e-12).astype(np.float32)


def _fixed_scale_nodes(node: onnx.NodeProto, bound: Bound) -> Iterator[onnx.NodeProto]:
    """Yield the product of an activation that has a bound."""
    activation_name = node.input[0]
    if np.any(bound != 1):
        activation_name = f"{node.output[0]}.unit"
        yield helper.make_node("Mul", [node.input[0], f"{node.output[0]}.f"], [activation_name])
    yield helper.make_node("QuantizeLinear", [activation_name, "q.scale", "q.zero"], [f"{node.output[0]}.q"])
    yield from _integer_product_nodes(node, f"{node.output[0]}.q", [])


def _row_scale_nodes(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Yield the product of an activation without a bound: each row is divided by its own largest value first."""
    product_name = node.output[0]
    yield helper.make_node("Abs", [node.input[0]], [f"{product_name}.abs"])
    yield helper.make_node("ReduceMax", [f"{product_name}.abs", "q.axis"], [f"{product_name}.top"], keepdims=1)
    yield helper.make_node("Max", [f"{product_name}.top", "q.tiny"], [f"{product_name}.row"])
    yield helper.make_node("Div", [node.input[0], f"{product_name}.row"], [f"{product_name}.unit"])
    yield helper.make_node("QuantizeLinear", [f"{product_name}.unit", "q.scale", "q.zero"], [f"{product_name}.q"])
    yield from _integer_product_nodes(node, f"{product_name}.q", [f"{product_name}.row"])


def _integer_product_nodes(
    node: onnx.NodeProto, integer_name: str, row_scale_names: list[str]
) -> Iterator[onnx.NodeProto]:
    """Yield the product of activations, which are integers already, scaled back to floats, with the bias.

    Measured on Zen 5, these nodes are faster than MatMulIntegerToFloat, which is all of them in one:
    38 against 48 us for the three products of two layers of 512 in one row, 631 against 813 us in 64 rows.
    """
    product_name = node.output[0]
    yield helper.make_node(
        "MatMulInteger", [integer_name, f"{product_name}.w", "q.zero", "q.zero8"], [f"{product_name}.i"]
    )
    yield helper.make_node("Cast", [f"{product_name}.i"], [f"{product_name}.0"], to=onnx.TensorProto.FLOAT)
    float_operations = [("Mul", f"{product_name}.s")]
    float_operations += [("Mul", scale_name) for scale_name in row_scale_names]
    float_operations += [("Add", bias_name) for bias_name in node.input[2:] if bias_name]
    for operation_number, (op_type, operand_name) in enumerate(float_operations, 1):
        output_name = (
            product_name if operation_number == len(float_operations) else f"{product_name}.{operation_number}"
        )
        yield helper.make_node(op_type, [f"{product_name}.{operation_number - 1}", operand_name], [output_name])


def _drop_types(graph: onnx.GraphProto, names: set[str]) -> None:
    """Remove what the graph declares of values whose types have changed."""
    value_infos = [value_info for value_info in graph.value_info if value_info.name not in names]
    del graph.value_info[:]
    graph.value_info.extend(value_infos)


def _drop_unused_initializers(graph: onnx.GraphProto) -> None:
    used_names = {name for node in graph.node for name in names_read(node)}
    used_names |= {value_info.name for value_info in graph.output}
    replace_initializers(graph, [tensor for tensor in graph.initializer if tensor.name in used_names])
