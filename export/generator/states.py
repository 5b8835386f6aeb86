"""Splits the states of a step into layers. (onnx, spox)

A model of several layers stacks their states into one tensor, which the step takes apart at every position and then
stacks again. Where a graph does nothing else with a state, its layers are carried from position to position as separate
tensors, without the nodes that split and stack them.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxscript.optimizer
import spox.opset.ai.onnx.v21 as op
from onnx import helper
from spox import Var

from gentext.export.proto import copy_model, find_value_info, initializer_array, int_attribute
from gentext.export.strategies.indexing import int_vector
from gentext.exported.metadata import Bundle, StateMeta


@dataclasses.dataclass(frozen=True)
class CarriedTensor:
    """A tensor that a position passes to the next one: a state of the model, or one layer of it."""

    name: str
    state: StateMeta
    layer: int | None
    """The layer's index along axis 0 of the state; None: the tensor is the entire state."""


def split_graph(step: onnx.ModelProto, bundle: Bundle) -> tuple[onnx.ModelProto, list[CarriedTensor]]:
    """Return the step with its stacked states split into layers where that is possible, and its states in order."""
    model = copy_model(step)
    carried: list[CarriedTensor] = []
    for state in bundle.states:
        layers = _split_state(model.graph, state)
        if layers is None:
            carried.append(CarriedTensor(state.name, state, None))
        else:
            carried += [CarriedTensor(f"{state.name}.{layer}", state, layer) for layer in range(layers)]
    onnxscript.optimizer.remove_unused_nodes(model)
    return model, carried


def split_states(states: dict[str, Var], carried: list[CarriedTensor]) -> list[Var]:
    """Return the variables to carry for the states of a model, which have names."""
    return [
        states[tensor.state.name]
        if tensor.layer is None
        else op.gather(states[tensor.state.name], op.const(np.int64(tensor.layer)), axis=0)
        for tensor in carried
    ]


def merge_states(variables: list[Var], carried: list[CarriedTensor]) -> dict[str, Var]:
    """Return the states of a model by name: the inverse of `split_states`."""
    layers: dict[str, list[Var]] = {}
    for var, tensor in zip(variables, carried, strict=True):
        layer = var if tensor.layer is None else op.unsqueeze(var, int_vector(0))
        layers.setdefault(tensor.state.name, []).append(layer)
    return {name: stack[0] if len(stack) == 1 else op.concat(stack, axis=0) for name, stack in layers.items()}


def _split_state(graph: onnx.GraphProto, state: StateMeta) -> int | None:
    """Split one state of a graph into inputs and outputs NAME.0, NAME.1, ...

    Returns the number of layers, or None where the graph does not work on the layers one by one.
    """
    if state.shape[0] is None:
        return None
    readers = [node for node in graph.node if state.name in node.input]
    layers_read = [_find_layer_read(graph, node, state.shape[0]) for node in readers]
    layer_names = _stacked_layers(graph, f"{state.name}_out")
    if None in layers_read or layer_names is None or len(layer_names) != state.shape[0]:
        return None
    for node, layer_index in zip(readers, layers_read, strict=True):
        node.CopyFrom(helper.make_node("Identity", [f"{state.name}.{layer_index}"], list(node.output)))
    layer_shape = ["N" if size is None else size for size in state.shape[1:]]
    element_type = helper.np_dtype_to_tensor_dtype(np.dtype(state.dtype))
    graph.node.remove(next(node for node in graph.node if f"{state.name}_out" in node.output))
    graph.input.remove(find_value_info(graph.input, state.name))
    graph.output.remove(find_value_info(graph.output, f"{state.name}_out"))
    for layer_index, layer_name in enumerate(layer_names):
        graph.input.append(helper.make_tensor_value_info(f"{state.name}.{layer_index}", element_type, layer_shape))
        graph.node.append(helper.make_node("Identity", [layer_name], [f"{state.name}.{layer_index}_out"]))
        graph.output.append(helper.make_tensor_value_info(f"{state.name}.{layer_index}_out", element_type, layer_shape))
    return len(layer_names)


def _find_layer_read(graph: onnx.GraphProto, node: onnx.NodeProto, layers: int) -> int | None:
    """Return which layer a node takes out of a state, or None where it does anything else."""
    if node.op_type != "Gather" or int_attribute(node, "axis", 0) != 0:
        return None
    layer_index = initializer_array(graph, node.input[1])
    return int(layer_index) % layers if layer_index is not None and layer_index.ndim == 0 else None


def _stacked_layers(graph: onnx.GraphProto, name: str) -> list[str] | None:
    """Return the values that a Concat stacks along axis 0 to an output, or None where it is computed otherwise."""
    producers = {output_name: node for node in graph.node for output_name in node.output}
    concat_node = producers.get(name)
    if concat_node is None or concat_node.op_type != "Concat" or concat_node.attribute[0].i != 0:
        return None
    layer_names = []
    for unsqueezed_name in concat_node.input:
        unsqueeze_node = producers.get(unsqueezed_name)
        if unsqueeze_node is None or unsqueeze_node.op_type != "Unsqueeze":
            return None
        axes = initializer_array(graph, unsqueeze_node.input[1])
        if axes is None or axes.ravel().tolist() != [0]:
            return None
        layer_names.append(unsqueeze_node.input[0])
    return layer_names
