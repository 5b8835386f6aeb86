"""What every file of ours has in common as a protobuf. (onnx)"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

OPSET = 21
IR_VERSION = 10


def declare(value: onnx.ValueInfoProto, shape: Sequence[int | str | None]) -> None:
    """Say which shape an input or output has; a word is an open size, and so is None."""
    value.type.tensor_type.ClearField("shape")
    for size in shape:
        dim = value.type.tensor_type.shape.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        elif size is not None:
            dim.dim_param = size


def sizes(value: onnx.ValueInfoProto) -> list[int | str | None]:
    """Return the declared shape of a value."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims]


def copied(node: onnx.NodeProto) -> onnx.NodeProto:
    """Return a node that outlives the graph that it is taken from."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
