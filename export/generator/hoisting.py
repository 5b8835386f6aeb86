"""Moves nodes whose result is the same at every position out of a generator's loop. (onnx)

Parameters and tables do not change from one position to the next, so neither does anything that a link
computes from them alone. spox puts a node where its result is used, which is inside the loop.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx

from gentext.export.proto import copy_node, replace_nodes, subgraphs


def hoist_invariants(graph: onnx.GraphProto) -> None:
    """Move the nodes of every Loop's body that depend on nothing inside it in front of the Loop."""
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Loop":
            body = next(subgraphs(node))
            hoisted_nodes = _remove_invariants(body, {value_info.name for value_info in body.input})
            names_read = {name for hoisted_node in hoisted_nodes for name in hoisted_node.input}
            nodes += [*_remove_constants(body, names_read), *hoisted_nodes]
        nodes.append(node)
    replace_nodes(graph, nodes)


def _remove_invariants(graph: onnx.GraphProto, changing_names: set[str]) -> list[onnx.NodeProto]:
    """Remove and return the nodes that depend on no value in ``changing_names``; add to it the other nodes' outputs.

    Nodes inside of branches are hoisted as well: to run them once, even if no position takes the branch, costs
    less than to run them at every position that does.
    """
    hoisted_nodes: list[onnx.NodeProto] = []
    remaining_nodes: list[onnx.NodeProto] = []
    graph_outputs = {value_info.name for value_info in graph.output}
    for node in graph.node:
        branches = list(subgraphs(node))
        for branch in branches:
            hoisted_nodes += _remove_invariants(branch, changing_names)
        if node.op_type == "Constant":
            remaining_nodes.append(node)  # `hoist_invariants` moves those that hoisted nodes need
        elif branches or not changing_names.isdisjoint(node.input) or not graph_outputs.isdisjoint(node.output):
            remaining_nodes.append(node)
            changing_names.update(node.output)
        else:
            hoisted_nodes.append(copy_node(node))
    replace_nodes(graph, remaining_nodes)
    return hoisted_nodes


def _remove_constants(graph: onnx.GraphProto, names: Collection[str]) -> list[onnx.NodeProto]:
    """Remove and return the constants of these names, from a graph and its branches."""
    removed_nodes: list[onnx.NodeProto] = []
    remaining_nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for branch in subgraphs(node):
            removed_nodes += _remove_constants(branch, names)
        if node.op_type == "Constant" and node.output[0] in names:
            removed_nodes.append(copy_node(node))
        else:
            remaining_nodes.append(copy_node(node))
    replace_nodes(graph, remaining_nodes)
    return removed_nodes
