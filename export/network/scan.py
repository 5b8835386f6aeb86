"""Repeats a step graph over time with ONNX's operator Scan. (onnx)"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from gentext.export.proto import find_value_info
from gentext.exported.metadata import Bundle


def scan_over_time(step: onnx.ModelProto, bundle: Bundle) -> onnx.ModelProto:
    """Turn ``tokens [B], states -> logits [B, V], states`` into the same over [B, T].

    The step becomes the body of a Scan; its weights stay outside, once in the file.
    """
    state_names = [state.name for state in bundle.states]
    body = helper.make_graph(
        list(step.graph.node),
        "step",
        [find_value_info(step.graph.input, name) for name in [*state_names, "tokens"]],
        [
            *(find_value_info(step.graph.output, f"{name}_out") for name in state_names),
            find_value_info(step.graph.output, "logits"),
        ],
    )
    # The names in a body and in the graph around it must differ, so what goes into the Scan gets a prefix.
    scan_inputs = {name: f"begin_{name}" for name in [*state_names, "tokens"]}
    nodes = [helper.make_node("Identity", [name], [scan_inputs[name]]) for name in state_names] + [
        helper.make_node("Transpose", ["tokens"], [scan_inputs["tokens"]], perm=[1, 0]),
        helper.make_node(
            "Scan",
            [*(scan_inputs[name] for name in state_names), scan_inputs["tokens"]],
            [*(f"end_{name}" for name in state_names), "end_logits"],
            body=_with_prefixed_interface(body),
            num_scan_inputs=1,
        ),
        *(helper.make_node("Identity", [f"end_{name}"], [f"{name}_out"]) for name in state_names),
        helper.make_node("Transpose", ["end_logits"], ["logits"], perm=[1, 0, 2]),
    ]
    input_infos = [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "time"])]
    output_infos = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "time", bundle.vocab_size])]
    for state in bundle.states:
        shape = ["batch" if size is None else size for size in state.shape]
        element_type = helper.np_dtype_to_tensor_dtype(np.dtype(state.dtype))
        input_infos.append(helper.make_tensor_value_info(state.name, element_type, shape))
        output_infos.append(helper.make_tensor_value_info(f"{state.name}_out", element_type, shape))
    graph = helper.make_graph(nodes, "model", input_infos, output_infos, list(step.graph.initializer))
    return helper.make_model(graph, opset_imports=list(step.opset_import), functions=list(step.functions))


def _with_prefixed_interface(body: onnx.GraphProto) -> onnx.GraphProto:
    """Rename the body's inputs and outputs, so that they do not shadow the outer graph's."""
    prefixed_names = {value_info.name: f"step_{value_info.name}" for value_info in [*body.input, *body.output]}
    for value_info in [*body.input, *body.output]:
        value_info.name = prefixed_names[value_info.name]
    for node in body.node:
        node.input[:] = [prefixed_names.get(name, name) for name in node.input]
        node.output[:] = [prefixed_names.get(name, name) for name in node.output]
    return body
