"""Builds model.onnx: a trained model with its recurrent state as explicit inputs and outputs. (torch, onnx)"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import onnx
import torch
from torch import Tensor

from gentext.errors import ExportError, RunError, reason
from gentext.export.network.scan import scan_over_time
from gentext.export.proto import IR_VERSION, OPSET, check_graph, declare_shape, serialize_model, subgraphs
from gentext.export.verify import Difference, verify_model
from gentext.exported.metadata import Bundle
from gentext.interfaces import Model
from gentext.plugins.pytorch.recurrent import TorchState

#: Rows and positions of the example that is traced: no two sizes alike, none of them 1.
EXAMPLE_ROWS, EXAMPLE_POSITIONS = 3, 5
#: How a graph was made that repeats the model's step.
SCAN = "a scan over steps"
#: The parts of a file on which the tracer leaves notes.
_Annotated = (
    onnx.ModelProto | onnx.GraphProto | onnx.FunctionProto | onnx.NodeProto | onnx.ValueInfoProto | onnx.TensorProto
)


class ModelFile(NamedTuple):
    """The bytes of model.onnx, checked."""

    model_bytes: bytes
    difference: Difference
    method: str
    """How the graph was made, in words."""


def export_model(model: Model, bundle: Bundle) -> ModelFile:
    """Return a model file that agrees with its model. Raises ExportError, and RunError where no temporary file can be
    written.

    The tracer unrolls a Python loop over time without a warning, so the graph is correct for one length only and
    fails the check at other lengths. Such a model is exported as a scan over its ``step``.
    """
    problems = []
    for method, make_graph in (("whole sequences", trace_forward), (SCAN, scan_steps)):
        try:
            model_bytes = _serialize_model(make_graph(model, bundle), bundle)
            return ModelFile(model_bytes, verify_model(model_bytes, model, bundle), method)
        except RunError:  # the disk of temporary files is full, which no other method mends
            raise
        except ExportError as error:
            problems.append(f"{method}: {error}")
        except Exception as error:  # the exporter raises nearly anything
            problems.append(f"{method}: {reason(error.__cause__ or error)}")
    raise ExportError(f"the model cannot be exported. {'; '.join(problems)}")


def trace_forward(model: Model, bundle: Bundle) -> onnx.ModelProto:
    """Trace ``forward`` over a whole window, with batch and time left open."""
    tokens = torch.zeros((EXAMPLE_ROWS, EXAMPLE_POSITIONS), dtype=torch.int64)
    return _trace_module(_Forward(model), tokens, bundle)


def scan_steps(model: Model, bundle: Bundle) -> onnx.ModelProto:
    """Trace ``step`` and let ONNX repeat it over time."""
    return scan_over_time(trace_step(model, bundle), bundle)


def trace_step(model: Model, bundle: Bundle) -> onnx.ModelProto:
    """Trace ``step``: tokens [B] and the states give logits [B, V] and the new states."""
    return _trace_module(_Step(model), torch.zeros((EXAMPLE_ROWS,), dtype=torch.int64), bundle)


class _Forward(torch.nn.Module):
    """A model's ``forward``, with the names of arguments that the exporter's dynamic shapes refer to."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, state: TorchState) -> TorchState:
        logits, next_state = self.model(tokens, state)
        return (logits.float(), *next_state)


class _Step(_Forward):
    """A model's ``step``, with the same names of arguments."""

    def forward(self, tokens: Tensor, state: TorchState) -> TorchState:
        logits, next_state = self.model.step(tokens, state)
        return (logits.float(), *next_state)


def _trace_module(module: torch.nn.Module, tokens: Tensor, bundle: Bundle) -> onnx.ModelProto:
    """Trace a module for example tokens, all axes of which stay open, as does the batch axis of each state."""
    # PyTorch 2.13 caches how it traced a recurrent layer, and then traces the next one with a fixed time axis.
    for operator_name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        getattr(getattr(torch.ops.aten, operator_name).input, "_dispatch_cache", {}).clear()
    state_names = [state.name for state in bundle.states]
    states = tuple(torch.from_numpy(state.initial_rows(EXAMPLE_ROWS)).clone() for state in bundle.states)
    open_axes: dict[str, Any] = {
        "tokens": dict.fromkeys(range(tokens.dim()), torch.export.Dim.DYNAMIC),
        "state": tuple({state.spec.batch_axis: torch.export.Dim.DYNAMIC} for state in bundle.states),
    }
    with _silence_exporter():
        onnx_program = torch.onnx.export(
            module.eval(),
            (tokens, states),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=open_axes,
            input_names=["tokens", *state_names],
            output_names=["logits", *(f"{operator_name}_out" for operator_name in state_names)],
            verbose=False,
        )
    assert onnx_program is not None
    proto: onnx.ModelProto = onnx_program.model_proto
    return proto


def remove_annotations(proto: onnx.ModelProto) -> None:
    """Remove the tracer's notes on all parts of a model, such as lines and paths of the source of a node."""
    _clear_annotations(proto)
    _remove_graph_annotations(proto.graph)
    for function in proto.functions:
        _clear_annotations(function)
        _remove_node_annotations(function.node)


def _remove_graph_annotations(graph: onnx.GraphProto) -> None:
    for annotated in (graph, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        _clear_annotations(annotated)
    _remove_node_annotations(graph.node)


def _remove_node_annotations(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        _clear_annotations(node)
        for graph in subgraphs(node):
            _remove_graph_annotations(graph)


def _clear_annotations(annotated: _Annotated) -> None:
    del annotated.metadata_props[:]
    annotated.ClearField("doc_string")


@contextlib.contextmanager
def _silence_exporter() -> Iterator[None]:
    """Hide the log lines, warnings and prints of PyTorch's exporter; its exceptions still come out."""
    previous_level = logging.root.manager.disable
    logging.disable(logging.ERROR)  # PyTorch 2.7 logs as errors what it then raises
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous_level)


def _serialize_model(proto: onnx.ModelProto, bundle: Bundle) -> bytes:
    """Declare the interface, attach the metadata, drop the tracer's annotations, and check the graph."""
    proto.ir_version = IR_VERSION
    shapes: dict[str, list[int | str]] = {
        "tokens": ["batch", "time"],
        "logits": ["batch", "time", bundle.vocab_size],
    }
    for state in bundle.states:
        shape: list[int | str] = ["batch" if size is None else size for size in state.shape]
        shapes[state.name] = shapes[f"{state.name}_out"] = shape
    for value_info in [*proto.graph.input, *proto.graph.output]:
        declare_shape(value_info, shapes[value_info.name])
    del proto.graph.value_info[:]
    remove_annotations(proto)
    onnx.helper.set_model_props(proto, bundle.to_metadata())
    proto.producer_name, proto.producer_version = "gentext", ""
    check_graph(proto)
    return serialize_model(proto)
