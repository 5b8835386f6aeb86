"""The graph of one step of a model, which a generator repeats. (torch, onnx)"""

from __future__ import annotations

from typing import Any

import onnx
import onnxscript.optimizer
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from gentext.errors import ExportError, reason
from gentext.export.network.model import remove_annotations, trace_step
from gentext.export.proto import check_graph, copy_model, replace_initializers
from gentext.exported.metadata import Bundle
from gentext.interfaces import Model

#: Elements from which a constant counts as a weight.
MIN_WEIGHT_SIZE = 256


def step_graph(model: Model, bundle: Bundle) -> onnx.ModelProto:
    """Trace ``step`` and fold what depends on weights alone; raise ExportError where it cannot be traced."""
    try:
        proto = trace_step(model, bundle)
        onnxscript.optimizer.fold_constants(proto, input_size_limit=2**31, output_size_limit=2**31)
        onnxscript.optimizer.remove_unused_nodes(proto)
        onnxscript.optimizer.remove_unused_functions(proto)
        check_graph(proto)  # so that what onnx refuses later comes from a conversion of gentext
    except Exception as error:  # the exporter raises nearly anything
        raise ExportError(f"the model's step cannot be traced: {reason(error)}") from error
    remove_annotations(proto)
    return proto


def lift_weights(step: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, NDArray[Any]]]:
    """Turn large constants into inputs, so that every copy of the step shares them.

    Returns the changed model and the constants by name.
    """
    model = copy_model(step)
    graph = model.graph
    weights: dict[str, NDArray[Any]] = {}
    small_constants = []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.size < MIN_WEIGHT_SIZE:
            small_constants.append(tensor)
            continue
        weights[tensor.name] = array
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(array.shape)))
    replace_initializers(graph, small_constants)
    return model, weights


def count_weight_bytes(step: onnx.ModelProto) -> int:
    """Return how many bytes of constants one position of one row reads.

    A constant that is only looked up, as an embedding is, counts for nothing: a row of it is small beside a matrix.
    """
    names_read = {name for node in step.graph.node if node.op_type != "Gather" for name in node.input}
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in step.graph.initializer if tensor.name in names_read)
