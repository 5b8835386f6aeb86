"""Traces of models that all tests share: PyTorch's exporter takes seconds for each, and many tests export alike models.

A trace is taken again where the model has the same code, options and shapes of weights as one before, in this worker or
another. It is kept as it was before the exporter folded constants; the weights of the model at hand are put into it,
and folding takes a tenth of the time. Only numbers in the names of a few nodes differ from a trace of the model itself.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from products import Products

from gentext.exported.metadata import Bundle

Trace = Callable[[torch.nn.Module, torch.Tensor, Bundle], onnx.ModelProto]
#: Of these packages `products.fingerprint` covers the code.
PACKAGES = ("gentext", "torch")


class Indescribable(Exception):
    """A model depends on something that has no description, such as code of a test."""


def describe_value(value: Any) -> object:
    """Return what a trace can depend on, as something whose ``repr`` is the same in each process."""
    if value is None or isinstance(value, (bool, int, float, str, bytes, torch.dtype, torch.Size)):
        return value
    if isinstance(value, (list, tuple)):
        return [describe_value(item) for item in value]
    if isinstance(value, dict):
        return [(describe_value(key), describe_value(item)) for key, item in value.items()]
    if isinstance(value, torch.Tensor):
        return describe_value(value.detach().cpu().numpy())
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()
    if isinstance(value, torch.nn.Module):
        own = {name: item for name, item in vars(value).items() if not name.startswith("_")}
        return describe_class(type(value)), describe_value(own | value._modules)
    if dataclasses.is_dataclass(value):
        return describe_class(type(value)), describe_value(vars(value))
    raise Indescribable(type(value))


def describe_class(cls: type) -> str:
    """Return the name of a class; no function of it may have been replaced by one of a test."""
    for base in cls.__mro__:
        functions = [value for value in vars(base).values() if inspect.isfunction(value)]
        if base.__module__.split(".")[0] in PACKAGES and any(
            function.__module__.split(".")[0] not in (*PACKAGES, "dataclasses") for function in functions
        ):
            raise Indescribable
    if cls.__module__.split(".")[0] not in PACKAGES:
        raise Indescribable
    return f"{cls.__module__}.{cls.__qualname__}"


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers of a module, by all of their names."""
    return dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))


def describe_weights(module: torch.nn.Module) -> object:
    """Return the names, types and shapes of a module's weights, and which of them are one."""
    named = weights(module)
    first = {id(tensor): name for name, tensor in reversed(named.items())}
    return [(name, str(tensor.dtype), tuple(tensor.shape), first[id(tensor)]) for name, tensor in named.items()]


def trace_unfolded(trace: Trace, module: torch.nn.Module, tokens: torch.Tensor, bundle: Bundle) -> onnx.ModelProto:
    """Return the trace of a module in which each weight is as it is, under its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", functools.partial(torch.onnx.export, optimize=False))
        return trace(module, tokens, bundle)


def fold(unfolded: onnx.ModelProto, module: torch.nn.Module) -> onnx.ModelProto:
    """Return a trace as the exporter makes it, with the weights of a module."""
    named = weights(module)
    model = onnx_ir.from_proto(unfolded)
    for name in named.keys() & model.graph.initializers.keys():
        model.graph.initializers[name].const_value = onnx_ir.tensor(named[name].detach().numpy(), name=name)
    program = torch.onnx.ONNXProgram(model, None)
    program.optimize()
    return cast(onnx.ModelProto, program.model_proto)


def shared_trace(trace: Trace, products: Products) -> Trace:
    """Return ``trace``, which takes what is in ``products`` and adds what is new."""

    @functools.wraps(trace)
    def take_or_trace(module: torch.nn.Module, tokens: torch.Tensor, bundle: Bundle) -> onnx.ModelProto:
        try:
            key = describe_value(module.eval()), describe_weights(module), tuple(tokens.shape), repr(bundle.states)
        except Indescribable:
            return trace(module, tokens, bundle)

        def write_trace(folder: Path) -> None:
            (folder / "trace.onnx").write_bytes(trace_unfolded(trace, module, tokens, bundle).SerializeToString())

        return fold(onnx.load_model(products.find(write_trace, key) / "trace.onnx"), module)

    return take_or_trace
