"""Work that is the same at every position, moved out of a generator's loop. (onnx)

Parameters and tables do not change from one position to the next, nor does what a link computes of
them alone. spox puts a node where its result is used, which is inside.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import onnx

from gentext.export.proto import copied


def hoist(graph: onnx.GraphProto) -> None:
    """Move the nodes of every Loop's body that depend on nothing inside it in front of the Loop."""
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Loop":
            body = next(_subgraphs(node))
            taken = _take_out(body, {value.name for value in body.input})
            used = {name for one in taken for name in one.input}
            nodes += [*_take_constants(body, used), *taken]
        nodes.append(node)
    _replace(graph, nodes)


def _take_out(graph: onnx.GraphProto, changing: set[str]) -> list[onnx.NodeProto]:
    """Remove and return the nodes that depend on nothing that changes; ``changing`` grows on the way.

    Branches are looked into as well: done once, even for nothing, is cheaper than done at each position.
    """
    taken: list[onnx.NodeProto] = []
    kept: list[onnx.NodeProto] = []
    results = {value.name for value in graph.output}
    for node in graph.node:
        branches = list(_subgraphs(node))
        for branch in branches:
            taken += _take_out(branch, changing)
        if node.op_type == "Constant":
            kept.append(node)
        elif branches or not changing.isdisjoint(node.input) or not results.isdisjoint(node.output):
            kept.append(node)
            changing.update(node.output)
        else:
            taken.append(copied(node))
    _replace(graph, kept)
    return taken


def _take_constants(graph: onnx.GraphProto, names: Collection[str]) -> list[onnx.NodeProto]:
    """Remove and return the constants of these names, from a graph and its branches."""
    taken: list[onnx.NodeProto] = []
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        for branch in _subgraphs(node):
            taken += _take_constants(branch, names)
        wanted = node.op_type == "Constant" and node.output[0] in names
        (taken if wanted else kept).append(copied(node))
    _replace(graph, kept)
    return taken


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    return (one.g for one in node.attribute if one.type == onnx.AttributeProto.GRAPH)


def _replace(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    kept = [copied(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
