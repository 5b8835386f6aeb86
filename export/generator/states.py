"""The states of a step, cut into the parts that its graph works on. (onnx, spox)

A model of several layers stacks their states into one tensor, and every position of a generator would
take it apart and put it together again. Where a graph does nothing else with a state, its layers are
carried one by one.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
import onnxscript.optimizer
import spox.opset.ai.onnx.v21 as op
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from spox import Var

from gentext.bundle import Bundle, StateMeta
from gentext.export.strategies.traced import axes


@dataclasses.dataclass(frozen=True)
class Part:
    """One tensor that a position hands to the next."""

    name: str
    state: StateMeta
    layer: int | None
    """Which of the state's layers (axis 0) it is; None: the whole state."""

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Sizes, the batch as N."""
        sizes = tuple("N" if size is None else size for size in self.state.shape)
        return sizes if self.layer is None else sizes[1:]


def split_states(step: onnx.ModelProto, bundle: Bundle) -> tuple[onnx.ModelProto, list[Part]]:
    """Return the step with its stacked states cut into layers where that can be done, and the parts in order."""
    model = onnx.ModelProto()
    model.CopyFrom(step)
    parts: list[Part] = []
    for state in bundle.states:
        layers = _cut(model.graph, state)
        names = [state.name] if layers is None else [f"{state.name}.{layer}" for layer in range(layers)]
        parts += [Part(name, state, None if layers is None else layer) for layer, name in enumerate(names)]
    onnxscript.optimizer.remove_unused_nodes(model)
    return model, parts


def take_apart(states: dict[str, Var], parts: list[Part]) -> list[Var]:
    """Return the parts of whole states, by name."""
    return [
        states[part.state.name]
        if part.layer is None
        else op.gather(states[part.state.name], op.const(np.int64(part.layer)), axis=0)
        for part in parts
    ]


def put_together(values: list[Var], parts: list[Part]) -> dict[str, Var]:
    """Return whole states from their parts."""
    layers: dict[str, list[Var]] = {}
    for value, part in zip(values, parts, strict=True):
        layers.setdefault(part.state.name, []).append(value if part.layer is None else op.unsqueeze(value, axes(0)))
    return {name: one[0] if len(one) == 1 else op.concat(one, axis=0) for name, one in layers.items()}


def _cut(graph: onnx.GraphProto, state: StateMeta) -> int | None:
    """Cut one state of a graph into inputs and outputs NAME.0, NAME.1, ...; return how many, or None."""
    if state.shape[0] is None:
        return None
    readers = [node for node in graph.node if state.name in node.input]
    takes = [_layer_taken(graph, node, state.shape[0]) for node in readers]
    stacked = _layers_stacked(graph, f"{state.name}_out")
    if None in takes or stacked is None or len(stacked) != state.shape[0]:
        return None
    for node, layer in zip(readers, takes, strict=True):
        node.CopyFrom(helper.make_node("Identity", [f"{state.name}.{layer}"], list(node.output)))
    shape = ["N" if size is None else size for size in state.shape[1:]]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(state.dtype))
    _drop(graph.input, state.name)
    _drop(graph.output, f"{state.name}_out")
    for layer, value in enumerate(stacked):
        graph.input.append(helper.make_tensor_value_info(f"{state.name}.{layer}", kind, shape))
        graph.node.append(helper.make_node("Identity", [value], [f"{state.name}.{layer}_out"]))
        graph.output.append(helper.make_tensor_value_info(f"{state.name}.{layer}_out", kind, shape))
    return len(stacked)


def _layer_taken(graph: onnx.GraphProto, node: onnx.NodeProto, layers: int) -> int | None:
    """Return which layer a node takes out of a state, or None where it does anything else."""
    axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
    if node.op_type != "Gather" or axis != 0:
        return None
    index = _constant(graph, node.input[1])
    return int(index) % layers if index is not None and index.ndim == 0 else None


def _layers_stacked(graph: onnx.GraphProto, name: str) -> list[str] | None:
    """Return the values that are stacked along axis 0 to make an output, and drop the nodes that do it."""
    made_by = {output: node for node in graph.node for output in node.output}
    stack = made_by.get(name)
    if stack is None or stack.op_type != "Concat" or stack.attribute[0].i != 0:
        return None
    values = []
    for given in stack.input:
        node = made_by.get(given)
        at = None if node is None or node.op_type != "Unsqueeze" else _constant(graph, node.input[1])
        if node is None or at is None or at.ravel().tolist() != [0]:
            return None
        values.append(node.input[0])
    graph.node.remove(stack)
    return values


def _constant(graph: onnx.GraphProto, name: str) -> NDArray[Any] | None:
    return next((numpy_helper.to_array(one) for one in graph.initializer if one.name == name), None)


def _drop(values: Any, name: str) -> None:
    values.remove(next(one for one in values if one.name == name))
