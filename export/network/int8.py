"""A step graph in 8 bits: matrix products on integers, row by row independent. (onnx)

Weights get one scale a column, in 7 bits: products of 8-bit pairs saturate on CPUs with AVX2 and
no VNNI, of 7-bit ones they cannot (255 * 63 * 2 < 2**15). Activations are never given a scale that
depends on the batch: those that provably lie in (-1, 1), as an LSTM's do, get the fixed scale
1/127, all others one a row.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from gentext.bundle import Bundle
from gentext.errors import ExportError

#: Largest weight: 7 bits.
WEIGHT_MAX = 63
#: Largest activation.
ACTIVATION_MAX = 127
#: Smallest matrix worth quantising, in elements.
SMALLEST = 1024

#: Operators that hand values on as they are.
_MOVES = {"Gather", "GatherND", "Split", "Concat", "Reshape", "Unsqueeze", "Squeeze", "Slice", "Identity", "Transpose"}
#: Operators whose results lie in (-1, 1) whatever they are given.
_BOUNDS = {"Tanh", "Sigmoid"}


def quantise(step: onnx.ModelProto, bundle: Bundle) -> onnx.ModelProto:
    """Return the step with its matrix products in 8 bits; raise ExportError where there are none."""
    model = onnx.ModelProto()
    model.CopyFrom(step)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    bounded = bounded_values(model.graph, bundle)
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, Any] = {
        "q.scale": np.float32(1 / ACTIVATION_MAX),
        "q.zero": np.uint8(128),
        "q.zero8": np.int8(0),
        "q.tiny": np.float32(1e-30),
        "q.axis": np.array([1], np.int64),
    }
    count = 0
    for node in model.graph.node:
        weight = _weight(node, weights)
        if weight is None:
            nodes.append(node)
            continue
        count += 1
        make = _fixed if node.input[0] in bounded else _per_row
        nodes += make(node, *_rounded(weight), constants)
    if not count:
        raise ExportError("int8: the model's step has no matrix product with constant weights")
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(one), name) for name, one in constants.items())
    _drop_unused(model.graph)
    return model


def bounded_values(graph: onnx.GraphProto, bundle: Bundle) -> set[str]:
    """Return the values that provably lie in [-1, 1] at every step.

    A state counts when its initial values do and, with that assumed, so does what follows it:
    the largest set for which this holds is found by dropping what fails and starting over.
    """
    states = {one.name for one in bundle.states if np.abs(one.row().astype(np.float64)).max(initial=0) <= 1}
    while True:
        bounded = set(states)
        for node in graph.node:
            inputs = [name for name in node.input if name]
            moved = inputs if node.op_type == "Concat" else inputs[:1]
            if (
                node.op_type in _BOUNDS
                or (node.op_type in _MOVES and all(name in bounded for name in moved))
                or (node.op_type == "Mul" and all(name in bounded for name in inputs))
            ):
                bounded.update(node.output)
        kept = {name for name in states if f"{name}_out" in bounded}
        if kept == states:
            return bounded
        states = kept


def _weight(node: onnx.NodeProto, weights: dict[str, NDArray[Any]]) -> NDArray[np.float32] | None:
    """Return the constant matrix [in, out] of a product, or None when the node is something else."""
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in weights:
        return None
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA", 0)
    weight = weights[node.input[1]]
    if not plain or weight.ndim != 2 or weight.size < SMALLEST or weight.dtype != np.float32:
        return None
    return weight.T if attributes.get("transB", 0) else weight


def _rounded(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a matrix [in, out] as integers with one scale a column."""
    scale = np.maximum(np.abs(weight).max(axis=0), 1e-12) / WEIGHT_MAX
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


def _fixed(
    node: onnx.NodeProto, integers: NDArray[np.int8], scale: NDArray[np.float32], constants: dict[str, Any]
) -> Iterable[onnx.NodeProto]:
    """The product of an activation in [-1, 1]: one fixed scale."""
    name = node.output[0]
    constants[f"{name}.w"], constants[f"{name}.s"] = integers, scale / np.float32(ACTIVATION_MAX)
    yield from _product(node, node.input[0], [])


def _per_row(
    node: onnx.NodeProto, integers: NDArray[np.int8], scale: NDArray[np.float32], constants: dict[str, Any]
) -> Iterable[onnx.NodeProto]:
    """The product of any activation: each row is divided by its own largest value first."""
    name = node.output[0]
    constants[f"{name}.w"], constants[f"{name}.s"] = integers, scale / np.float32(ACTIVATION_MAX)
    yield helper.make_node("Abs", [node.input[0]], [f"{name}.abs"])
    yield helper.make_node("ReduceMax", [f"{name}.abs", "q.axis"], [f"{name}.top"], keepdims=1)
    yield helper.make_node("Max", [f"{name}.top", "q.tiny"], [f"{name}.row"])
    yield helper.make_node("Div", [node.input[0], f"{name}.row"], [f"{name}.unit"])
    yield from _product(node, f"{name}.unit", [f"{name}.row"])


def _product(node: onnx.NodeProto, activation: str, rows: list[str]) -> Iterable[onnx.NodeProto]:
    """Activations in [-1, 1] to integers and back, times the scales of the rows, with the bias.

    Measured on Zen 5, these nodes are faster than MatMulIntegerToFloat, which is all of them in one:
    38 against 48 us for the three products of two layers of 512 in one row, 631 against 813 us in 64 rows.
    """
    name = node.output[0]
    bias = [node.input[2]] if len(node.input) > 2 and node.input[2] else []
    steps = [("Mul", f"{name}.s"), *(("Mul", row) for row in rows), *(("Add", one) for one in bias)]
    yield helper.make_node("QuantizeLinear", [activation, "q.scale", "q.zero"], [f"{name}.q"])
    yield helper.make_node("MatMulInteger", [f"{name}.q", f"{name}.w", "q.zero", "q.zero8"], [f"{name}.i"])
    yield helper.make_node("Cast", [f"{name}.i"], [f"{name}.0"], to=onnx.TensorProto.FLOAT)
    for at, (kind, other) in enumerate(steps, 1):
        output = name if at == len(steps) else f"{name}.{at}"
        yield helper.make_node(kind, [f"{name}.{at - 1}", other], [output])


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [onnx.TensorProto.FromString(one.SerializeToString()) for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
