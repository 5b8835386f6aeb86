"""A loop and a branch over trees of variables. (spox, onnx)"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import onnx
import spox
import spox.opset.ai.onnx.v21 as op
from onnx import TensorProto, helper
from spox import Tensor, Var

from gentext.export.generator.hoisting import hoist
from gentext.export.generator.tree import Tree, leaves, replaced
from gentext.export.proto import declare, sizes

Each = TypeVar("Each")
Same = TypeVar("Same")
Said = TypeVar("Said")

#: A body's names live beside those of the graph around it, so its own begin with this.
INSIDE = "position."
INDEX, KEEP, TRIPS = "index", "keep", "trips"


def loop(
    position: Callable[[Tree, Each, Same], tuple[Tree, Said]], trips: Var, begin: Tree, each: Each, same: Same
) -> tuple[Tree, Said]:
    """Repeat ``position`` along axis 0 of ``each``: return what is carried last, and what every position says.

    ``position`` is given what is carried, its own share of ``each``, and ``same``; it returns what follows, and
    what it says, which gets one more axis in front. It must use nothing else. The names in the trees differ.
    What depends on ``same`` alone is computed once. (A Scan would do the same, but onnxruntime goes round a Loop
    in less time, and no times at all, too.)
    """
    first, shares, kept = leaves(begin), leaves(each), leaves(same)
    arguments = {name: spox.argument(var.unwrap_tensor()) for name, var in (first | kept).items()}
    arguments |= {name: spox.argument(_share(var)) for name, var in shares.items()}
    results = position(replaced(begin, arguments), replaced(each, arguments), replaced(same, arguments))
    last, said = ({f"{INSIDE}{at}.{n}": var for n, var in leaves(one).items()} for at, one in enumerate(results))
    inputs = {name if name in kept else INSIDE + name: var for name, var in arguments.items()}
    # spox's own Loop forgets the ranks of what it carries, so the position is a model of its own first.
    whole = _loop_model(spox.build(inputs, last | said), list(first), list(shares), list(last))
    found = spox.inline(whole)(**{TRIPS: trips}, **first, **shares, **kept)
    return replaced(results[0], found, "0"), replaced(results[1], found, "1")


def either(condition: Var, then: Tree, otherwise: Tree) -> Tree:
    """Return the variables of one of two trees of the same shape, both of which are computed."""
    first, second = leaves(then), leaves(otherwise)
    chosen = op.if_(
        condition,
        then_branch=lambda: [op.identity(var) for var in first.values()],
        else_branch=lambda: [op.identity(second[name]) for name in first],
    )
    return replaced(then, dict(zip(first, chosen, strict=True)))


def _loop_model(position: onnx.ModelProto, first: list[str], shares: list[str], last: list[str]) -> onnx.ModelProto:
    """Return a model with one Loop, whose body is the graph of one position."""
    graph = position.graph
    inputs = {value.name: value for value in graph.input}
    outputs = [value.name for value in graph.output]
    index = helper.make_tensor_value_info(INDEX, TensorProto.INT64, [])
    keep = helper.make_tensor_value_info(KEEP, TensorProto.BOOL, [])
    nodes = [*(helper.make_node("Gather", [name, INDEX], [INSIDE + name]) for name in shares), *graph.node]
    carried = [inputs[INSIDE + name] for name in first]
    body = helper.make_graph(nodes, "position", [index, keep, *carried], [keep, *graph.output], graph.initializer)
    _drop_copies(body)
    node = helper.make_node("Loop", [TRIPS, "", *first], [_outside(name) for name in outputs], body=body)
    whole = helper.make_graph(
        [node],
        "positions",
        [
            helper.make_tensor_value_info(TRIPS, TensorProto.INT64, []),
            *(_declared(value, every=_outside(name) in shares) for name, value in inputs.items()),
        ],
        [_declared(value, every=value.name not in last) for value in graph.output],
    )
    hoist(whole)
    return helper.make_model(whole, opset_imports=position.opset_import, functions=position.functions)


def _drop_copies(body: onnx.GraphProto) -> None:
    """Let what a node computes be the output itself, where spox put a copy in between."""
    results = {value.name for value in body.output}
    made = {name for node in body.node for name in node.output}
    for copy in reversed([node for node in body.node if node.op_type == "Identity"]):
        source, result = copy.input[0], copy.output[0]
        # What is an output already, or stands outside, needs its copy.
        if result in results and source in made - results:
            body.node.remove(copy)
            _rename(body, source, result)


def _outside(name: str) -> str:
    return name.removeprefix(INSIDE)


def _declared(value: onnx.ValueInfoProto, *, every: bool) -> onnx.ValueInfoProto:
    """Return what stands outside the body for a value inside: one for every position, or as it is."""
    outside = onnx.ValueInfoProto()
    outside.CopyFrom(value)
    outside.name = _outside(value.name)
    if every:
        declare(outside, ["K", *sizes(value)])
    return outside


def _share(var: Var) -> Tensor:
    """Return the type of one position's share."""
    kind = var.unwrap_tensor()
    assert kind.shape is not None
    return Tensor(kind.dtype, kind.shape[1:])


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a value in a graph and in its branches."""
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, old, new)
                for value in attribute.g.output:
                    value.name = new if value.name == old else value.name
