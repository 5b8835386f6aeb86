"""A step graph repeated over time by ONNX itself. (onnx)"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import TensorProto, helper

from gentext.bundle import Bundle

TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}


def scan_over_time(step: onnx.ModelProto, bundle: Bundle) -> onnx.ModelProto:
    """Turn ``tokens [B], states -> logits [B, V], states`` into the same over [B, T].

    The step becomes the body of a Scan; its weights stay outside, once in the file.
    """
    names = [state.name for state in bundle.states]
    body = helper.make_graph(
        list(step.graph.node),
        "step",
        [*(_named(step.graph.input, name) for name in names), _named(step.graph.input, "tokens")],
        [*(_named(step.graph.output, f"{name}_out") for name in names), _named(step.graph.output, "logits")],
    )
    # A body's names live beside those of the graph around it, so the outer ones get a prefix.
    outer = {name: f"begin_{name}" for name in [*names, "tokens"]}
    nodes = [helper.make_node("Identity", [name], [outer[name]]) for name in names] + [
        helper.make_node("Transpose", ["tokens"], [outer["tokens"]], perm=[1, 0]),
        helper.make_node(
            "Scan",
            [*(outer[name] for name in names), outer["tokens"]],
            [*(f"end_{name}" for name in names), "end_logits"],
            body=_prefixed(body),
            num_scan_inputs=1,
        ),
        *(helper.make_node("Identity", [f"end_{name}"], [f"{name}_out"]) for name in names),
        helper.make_node("Transpose", ["end_logits"], ["logits"], perm=[1, 0, 2]),
    ]
    inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "time"])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "time", bundle.vocab_size])]
    for state in bundle.states:
        shape = ["batch" if size is None else size for size in state.shape]
        inputs.append(helper.make_tensor_value_info(state.name, TYPES[state.dtype], shape))
        outputs.append(helper.make_tensor_value_info(f"{state.name}_out", TYPES[state.dtype], shape))
    graph = helper.make_graph(nodes, "model", inputs, outputs, list(step.graph.initializer))
    return helper.make_model(graph, opset_imports=list(step.opset_import), functions=list(step.functions))


def _named(values: Iterable[onnx.ValueInfoProto], name: str) -> onnx.ValueInfoProto:
    return next(value for value in values if value.name == name)


def _prefixed(body: onnx.GraphProto) -> onnx.GraphProto:
    """Rename the body's inputs and outputs, so that they do not shadow the outer graph's."""
    rename = {value.name: f"step_{value.name}" for value in [*body.input, *body.output]}
    for value in [*body.input, *body.output]:
        value.name = rename[value.name]
    for node in body.node:
        node.input[:] = [rename.get(name, name) for name in node.input]
        node.output[:] = [rename.get(name, name) for name in node.output]
    return body
