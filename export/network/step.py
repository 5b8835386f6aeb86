"""The step of a model as a graph of its own, ready to be repeated. (torch, onnx)"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxscript.optimizer
from onnx import helper, numpy_helper

from gentext.bundle import Bundle
from gentext.errors import ExportError, reason
from gentext.export.network.model import trace_step

#: Elements from which a constant counts as a weight, and stands once in the file.
WEIGHT = 256


def step_graph(model: Any, bundle: Bundle) -> onnx.ModelProto:
    """Trace ``step`` and fold what depends on weights alone; raise ExportError where it cannot be traced."""
    try:
        proto = trace_step(model, bundle)
    except Exception as error:  # the exporter raises nearly anything
        raise ExportError(f"the model's step cannot be traced: {reason(error)}") from error
    onnxscript.optimizer.fold_constants(proto, input_size_limit=2**31, output_size_limit=2**31)
    onnxscript.optimizer.remove_unused_nodes(proto)
    onnxscript.optimizer.remove_unused_functions(proto)
    return proto


def lift_weights(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, np.ndarray[Any, Any]]]:
    """Turn large constants into inputs, so that every copy of the step shares them.

    Returns the changed model and the constants by name.
    """
    lifted = onnx.ModelProto()
    lifted.CopyFrom(proto)
    graph = lifted.graph
    weights: dict[str, np.ndarray[Any, Any]] = {}
    kept = []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.size < WEIGHT:
            kept.append(tensor)
            continue
        weights[tensor.name] = array
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(array.shape)))
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return lifted, weights
