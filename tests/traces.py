"""Traces of models that all tests share: PyTorch's exporter takes seconds for each, and many tests export one model.

A trace is taken again where the model has the same code, options and weights as one before, in this worker or another.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from products import Products

from gentext.exported.metadata import Bundle

Trace = Callable[[torch.nn.Module, torch.Tensor, Bundle], onnx.ModelProto]
#: Of these packages `products.fingerprint` covers the code.
PACKAGES = ("gentext", "torch")
#: Where a module keeps its weights and its parts.
CONTENT = ("_parameters", "_buffers", "_modules")


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
        own = {name: item for name, item in vars(value).items() if name in CONTENT or not name.startswith("_")}
        return describe_class(type(value)), describe_value(own)
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


def shared_trace(trace: Trace, products: Products) -> Trace:
    """Return ``trace``, which takes what is in ``products`` and adds what is new."""

    def take_or_trace(module: torch.nn.Module, tokens: torch.Tensor, bundle: Bundle) -> onnx.ModelProto:
        try:
            key = describe_value(module.eval()), tuple(tokens.shape), repr(bundle.states)
        except Indescribable:
            return trace(module, tokens, bundle)

        def write_trace(folder: Path) -> None:
            (folder / "trace.onnx").write_bytes(trace(module, tokens, bundle).SerializeToString())

        return onnx.load_model(products.find(write_trace, key) / "trace.onnx")

    return take_or_trace
