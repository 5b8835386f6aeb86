"""What every file of ours has in common as a protobuf. (onnx)"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

OPSET = 21
IR_VERSION = 10


def declare(value: onnx.ValueInfoProto, shape: Sequence[int | str]) -> None:
    """Say which shape an input or output has; a word is an open size."""
    value.type.tensor_type.ClearField("shape")
    for size in shape:
        dim = value.type.tensor_type.shape.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        else:
            dim.dim_param = size
