"""model.onnx: a trained model with its recurrent state as explicit inputs and outputs. (torch, onnx)"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import torch

from gentext.bundle import Bundle
from gentext.errors import ExportError, reason
from gentext.export.network.scan import scan_over_time
from gentext.export.proto import IR_VERSION, OPSET, declare
from gentext.export.verify import Difference, verify

#: Rows and positions of the example that is traced: no two sizes alike, none of them 1.
ROWS, TIME = 3, 5


def build(model: Any, bundle: Bundle) -> tuple[bytes, Difference, str]:
    """Return a verified model file, how far it is from PyTorch, and how it was made.

    A forward that bakes its time into the graph (a Python loop over time does, silently) fails
    the check at other lengths; such a model is exported as a scan over its ``step``.
    """
    problems = []
    for how, make in (("whole sequences", export_forward), ("a scan over steps", export_steps)):
        try:
            data = _finish(make(model, bundle), bundle)
            return data, verify(data, model, bundle), how
        except ExportError as error:
            problems.append(f"{how}: {error}")
        except Exception as error:  # the exporter raises nearly anything
            problems.append(f"{how}: {reason(error.__cause__ or error)}")
    raise ExportError(f"the model cannot be exported. {'; '.join(problems)}")


def export_forward(model: Any, bundle: Bundle) -> onnx.ModelProto:
    """Trace ``forward`` over a whole window, with batch and time left open."""
    states = [torch.from_numpy(state.rows(ROWS)).clone() for state in bundle.states]
    tokens = torch.zeros((ROWS, TIME), dtype=torch.int64)
    dynamic = {
        "tokens": {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},
        "state": tuple({state.spec.batch_axis: torch.export.Dim.DYNAMIC} for state in bundle.states),
    }
    names = [state.name for state in bundle.states]
    return _trace(_Forward(model), (tokens, tuple(states)), dynamic, ["tokens", *names], ["logits", *_outs(names)])


def export_steps(model: Any, bundle: Bundle) -> onnx.ModelProto:
    """Trace ``step`` and let ONNX repeat it over time."""
    return scan_over_time(trace_step(model, bundle), bundle)


def trace_step(model: Any, bundle: Bundle) -> onnx.ModelProto:
    """Trace ``step``: tokens [B] and the states give logits [B, V] and the new states."""
    states = [torch.from_numpy(state.rows(ROWS)).clone() for state in bundle.states]
    dynamic = {
        "tokens": {0: torch.export.Dim.DYNAMIC},
        "state": tuple({state.spec.batch_axis: torch.export.Dim.DYNAMIC} for state in bundle.states),
    }
    names = [state.name for state in bundle.states]
    tokens = torch.zeros((ROWS,), dtype=torch.int64)
    return _trace(_Step(model), (tokens, tuple(states)), dynamic, ["tokens", *names], ["logits", *_outs(names)])


class _Forward(torch.nn.Module):
    """``forward`` under the argument names that the dynamic shapes use."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor, state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        logits, new = self.model(tokens, state)
        return (logits.float(), *new)


class _Step(_Forward):
    """``step`` under the same names."""

    def forward(self, tokens: torch.Tensor, state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        logits, new = self.model.step(tokens, state)
        return (logits.float(), *new)


def _trace(module: Any, example: Any, dynamic: Any, inputs: list[str], outputs: list[str]) -> onnx.ModelProto:
    # PyTorch 2.13 remembers how it traced a recurrent layer, and unrolls the next one: seen as a fixed time axis.
    for name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        getattr(getattr(torch.ops.aten, name).input, "_dispatch_cache", {}).clear()
    with _quiet():
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=dynamic,
            input_names=inputs,
            output_names=outputs,
            verbose=False,
        )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    return proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's running commentary away from the user; its errors still come out."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _outs(names: list[str]) -> list[str]:
    return [f"{name}_out" for name in names]


def _finish(proto: onnx.ModelProto, bundle: Bundle) -> bytes:
    """Declare the interface, attach the metadata, drop what the tracer left behind, and check."""
    proto.ir_version = IR_VERSION
    shapes: dict[str, list[int | str]] = {
        "tokens": ["batch", "time"],
        "logits": ["batch", "time", bundle.vocab_size],
    }
    for state in bundle.states:
        shape: list[int | str] = ["batch" if size is None else size for size in state.shape]
        shapes[state.name] = shapes[f"{state.name}_out"] = shape
    for value in [*proto.graph.input, *proto.graph.output]:
        declare(value, shapes[value.name])
    del proto.metadata_props[:]
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    onnx.helper.set_model_props(proto, bundle.to_metadata())
    proto.producer_name, proto.producer_version = "gentext", ""
    onnx.checker.check_model(proto, full_check=True)
    data: bytes = proto.SerializeToString()
    return data
