"""Builds the operators Loop and If, whose inputs and outputs are trees of variables. (spox, onnx)"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import onnx
import spox
import spox.opset.ai.onnx.v21 as op
from onnx import TensorProto, helper
from spox import Tensor, Var

from gentext.export.generator.hoisting import hoist_invariants
from gentext.export.generator.tree import Tree, flatten, unflatten
from gentext.export.proto import declare_shape, declared_shape, subgraphs

State = TypeVar("State")
Inputs = TypeVar("Inputs")
Invariants = TypeVar("Invariants")
Outputs = TypeVar("Outputs")

#: Names in the body of a Loop must differ from those in the graph around it, so they begin with this.
BODY_PREFIX = "position."
#: Names of the values that every Loop has.
INDEX_NAME, CONDITION_NAME, TRIPS_NAME = "index", "keep", "trips"


def build_loop(
    body: Callable[[State, Inputs, Invariants], tuple[State, Outputs]],
    trips: Var,
    state: State,
    inputs: Inputs,
    invariants: Invariants,
) -> tuple[State, Outputs]:
    """Run ``body`` for each element along axis 0 of ``inputs``, at most ``trips`` times.

    ``body`` gets the state, one element of every input, and the invariants. It returns the next state and
    outputs; it must use no other variables. Nodes that depend on invariants alone run once, in front of the loop.
    The names in the three trees must differ.

    Returns the last state, and the outputs with one more axis in front. (A Scan would compute the same, but
    onnxruntime takes less time for an iteration of a Loop, and a Loop may have no iterations at all.)
    """
    state_vars, input_vars, invariant_vars = flatten(state), flatten(inputs), flatten(invariants)
    argument_vars = {name: spox.argument(var.unwrap_tensor()) for name, var in (state_vars | invariant_vars).items()}
    argument_vars |= {name: spox.argument(_element_type(var)) for name, var in input_vars.items()}
    next_state, outputs = body(
        unflatten(state, argument_vars), unflatten(inputs, argument_vars), unflatten(invariants, argument_vars)
    )
    next_vars = {f"{BODY_PREFIX}0.{name}": var for name, var in flatten(next_state).items()}
    output_vars = {f"{BODY_PREFIX}1.{name}": var for name, var in flatten(outputs).items()}
    # spox's own Loop forgets the ranks of the state, so the body becomes a model of its own first.
    body_inputs = {name if name in invariant_vars else BODY_PREFIX + name: var for name, var in argument_vars.items()}
    body_model = spox.build(body_inputs, next_vars | output_vars)
    model = _loop_model(body_model, list(state_vars), list(input_vars), list(next_vars))
    loop_results = spox.inline(model)(**{TRIPS_NAME: trips}, **state_vars, **input_vars, **invariant_vars)
    return unflatten(next_state, loop_results, "0"), unflatten(outputs, loop_results, "1")


def select_tree(condition: Var, if_true: Tree, if_false: Tree) -> Tree:
    """Return the variables of one of two trees of the same structure, both of which are computed."""
    true_vars, false_vars = flatten(if_true), flatten(if_false)
    results = op.if_(
        condition,
        then_branch=lambda: [op.identity(var) for var in true_vars.values()],
        else_branch=lambda: [op.identity(false_vars[name]) for name in true_vars],
    )
    return unflatten(if_true, dict(zip(true_vars, results, strict=True)))


def _loop_model(
    body_model: onnx.ModelProto, state_names: list[str], input_names: list[str], next_state_names: list[str]
) -> onnx.ModelProto:
    """Return a model with one Loop, whose body is the graph of another model.

    ``state_names`` and ``input_names`` are those outside the loop, ``next_state_names`` are outputs of the body.
    """
    graph = body_model.graph
    body_inputs = {value_info.name: value_info for value_info in graph.input}
    output_names = [_name_outside_loop(value_info.name) for value_info in graph.output]
    index_info = helper.make_tensor_value_info(INDEX_NAME, TensorProto.INT64, [])
    condition_info = helper.make_tensor_value_info(CONDITION_NAME, TensorProto.BOOL, [])
    element_nodes = [helper.make_node("Gather", [name, INDEX_NAME], [BODY_PREFIX + name]) for name in input_names]
    body = helper.make_graph(
        [*element_nodes, *graph.node],
        "position",
        [index_info, condition_info, *(body_inputs[BODY_PREFIX + name] for name in state_names)],
        [condition_info, *graph.output],
        graph.initializer,
    )
    _remove_output_copies(body)
    outer_graph = helper.make_graph(
        [helper.make_node("Loop", [TRIPS_NAME, "", *state_names], output_names, body=body)],
        "positions",
        [
            helper.make_tensor_value_info(TRIPS_NAME, TensorProto.INT64, []),
            *(
                _outer_value_info(value_info, stacked=_name_outside_loop(name) in input_names)
                for name, value_info in body_inputs.items()
            ),
        ],
        [_outer_value_info(value_info, stacked=value_info.name not in next_state_names) for value_info in graph.output],
    )
    hoist_invariants(outer_graph)
    return helper.make_model(outer_graph, opset_imports=body_model.opset_import, functions=body_model.functions)


def _remove_output_copies(body: onnx.GraphProto) -> None:
    """Let a node write to an output of the body directly, where spox put an Identity in between."""
    output_names = {value_info.name for value_info in body.output}
    computed_names = {name for node in body.node for name in node.output}
    for copy_node in reversed([node for node in body.node if node.op_type == "Identity"]):
        source_name, output_name = copy_node.input[0], copy_node.output[0]
        # A source that is an output itself, or comes from outside the body, needs its copy.
        if output_name in output_names and source_name in computed_names - output_names:
            body.node.remove(copy_node)
            rename_in_graph(body, source_name, output_name)


def rename_in_graph(graph: onnx.GraphProto, old_name: str, new_name: str) -> None:
    """Rename a value in a graph and in its branches."""
    for node in graph.node:
        node.input[:] = [new_name if name == old_name else name for name in node.input]
        node.output[:] = [new_name if name == old_name else name for name in node.output]
        for branch in subgraphs(node):
            rename_in_graph(branch, old_name, new_name)
            for value_info in branch.output:
                value_info.name = new_name if value_info.name == old_name else value_info.name


def _name_outside_loop(name: str) -> str:
    return name.removeprefix(BODY_PREFIX)


def _outer_value_info(value_info: onnx.ValueInfoProto, *, stacked: bool) -> onnx.ValueInfoProto:
    """Return the value outside the loop for one in its body; ``stacked``: with an axis of all positions in front."""
    outer_value_info = onnx.ValueInfoProto()
    outer_value_info.CopyFrom(value_info)
    outer_value_info.name = _name_outside_loop(value_info.name)
    if stacked:
        declare_shape(outer_value_info, ["K", *declared_shape(value_info)])
    return outer_value_info


def _element_type(var: Var) -> Tensor:
    """Return the type of one element along axis 0."""
    tensor = var.unwrap_tensor()
    assert tensor.shape is not None
    return Tensor(tensor.dtype, tensor.shape[1:])
