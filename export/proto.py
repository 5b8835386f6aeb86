"""Small operations on ONNX protobufs that several files of the export need. (onnx)"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import onnx
from google.protobuf.message import EncodeError
from numpy.typing import NDArray
from onnx import numpy_helper

from gentext.errors import ExportError, reason
from gentext.exported.onnx_file import CHECK_KEY, ZERO_DIGITS, write_check

#: Versions of the operators and of the file format that all exported files use.
OPSET = 21
IR_VERSION = 10


def check_graph(proto: onnx.ModelProto) -> None:
    """Have onnx check a file with all shapes inferred. Raises ExportError for one that is too large.

    Protobuf, and so one file, ends at 2 GiB. A larger model would need further files, which the check of the first one
    does not cover; gentext writes none.
    """
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (ValueError, EncodeError) as error:
        raise ExportError(f"the model is too large for one file of 2 GiB ({reason(error)})") from None


def serialize_model(proto: onnx.ModelProto) -> bytes:
    """Return the bytes of a file with a new check, see `gentext.exported.onnx_file`."""
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    onnx.helper.set_model_props(proto, metadata | {CHECK_KEY: ZERO_DIGITS})
    return write_check(proto.SerializeToString())


def declare_shape(value_info: onnx.ValueInfoProto, shape: Sequence[int | str | None]) -> None:
    """Set the shape of an input or output. A string names a size that is open, None leaves it unnamed."""
    value_info.type.tensor_type.ClearField("shape")
    for size in shape:
        dim = value_info.type.tensor_type.shape.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        elif size is not None:
            dim.dim_param = size


def declared_shape(value_info: onnx.ValueInfoProto) -> list[int | str | None]:
    """Return the shape of an input or output in the form that `declare_shape` takes."""
    dims = value_info.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims]


def copy_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that can be changed without changing the original."""
    model_copy = onnx.ModelProto()
    model_copy.CopyFrom(model)
    return model_copy


def copy_node(node: onnx.NodeProto) -> onnx.NodeProto:
    """Return a copy that stays valid when the graph of the original is changed."""
    node_copy = onnx.NodeProto()
    node_copy.CopyFrom(node)
    return node_copy


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Let a graph have these nodes and no others; they may come from the same graph."""
    node_copies = [copy_node(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(node_copies)


def replace_initializers(graph: onnx.GraphProto, tensors: Iterable[onnx.TensorProto]) -> None:
    """Let a graph have these constants and no others; they may come from the same graph."""
    tensor_copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in tensors]
    del graph.initializer[:]
    graph.initializer.extend(tensor_copies)


def initializer_array(graph: onnx.GraphProto, name: str) -> NDArray[Any] | None:
    """Return the constant of that name, or None where a graph has none."""
    return next((numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name == name), None)


def find_value_info(value_infos: Iterable[onnx.ValueInfoProto], name: str) -> onnx.ValueInfoProto:
    """Return the input or output of that name."""
    return next(value_info for value_info in value_infos if value_info.name == name)


def int_attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """Return a whole-number attribute of a node, or its default where the node does not set it."""
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the branches of an If, or the body of a Loop."""
    return (attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH)


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names of the values that a node reads, and those that its branches or its body read."""
    yield from node.input
    for graph in subgraphs(node):
        for inner_node in graph.node:
            yield from names_read(inner_node)


def number_nodes(graph: onnx.GraphProto, numbers: Iterator[int] | None = None) -> None:
    """Let numbers be the names of all nodes, for long names take a hundredth of a small file.

    onnxruntime 1.20 needs names: by those of some nodes it calls the ones that it puts in their place.
    """
    numbers = itertools.count() if numbers is None else numbers
    for node in graph.node:
        node.name = str(next(numbers))
        for branch in subgraphs(node):
            number_nodes(branch, numbers)
