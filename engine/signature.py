"""The interface of generator.onnx, in one place for those who write it and those who run it.

N rows, K positions, V symbols, U columns of noise. Every name is a tensor of the graph.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from gentext.bundle import Bundle
from gentext.interfaces import Finish
from gentext.noise import DRAW

#: What the numbers in ``ended`` mean.
FINISH: tuple[Finish, ...] = ("running", "stop", "masked")

Size = int | str


@dataclasses.dataclass(frozen=True)
class Port:
    """One input or output: a size that is a word is open."""

    name: str
    dtype: str
    shape: tuple[Size, ...]
    default: Any = None
    """The value of an input that is not fed, where it may be left out."""

    @property
    def row_axis(self) -> int | None:
        """The axis with an entry for each row; that of a parameter may also have one entry for all rows."""
        return next((at for at, size in enumerate(self.shape) if size in ("N", f"{self.name}.rows")), None)


@dataclasses.dataclass(frozen=True)
class Signature:
    """Inputs and outputs in order, and the columns of ``noise`` that belong to each name."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: tuple[Port, ...]
    """The inputs that come out again as ``NAME_out``: what a row carries from call to call."""
    noise: dict[str, tuple[int, int]]
    """Name -> (first column, how many): the links that ask, in chain order, then the draw."""

    @property
    def columns(self) -> int:
        return sum(count for _, count in self.noise.values())


def signature(bundle: Bundle) -> Signature:
    """Return the interface of a model's generator with the bundle's chain."""
    v = bundle.vocab_size
    noise = _noise_columns(bundle)
    states = [Port(one.name, one.dtype, tuple("N" if s is None else s for s in one.shape)) for one in bundle.states]
    for link in bundle.chain:
        states += [Port(f"{link.name}.{name}", one.dtype, ("N", *one.shape)) for name, one in link.state.items()]
    states += [Port("stop_state", "int64", ("N",)), Port("ended", "int64", ("N",))]
    inputs = [Port("token", "int64", ("N",)), *states, Port("fresh", "bool", ("N",))]
    columns = sum(count for _, count in noise.values())
    inputs += [Port("noise", "float32", ("K", "N", columns)), Port("forced", "int64", ("K", "N"))]
    for link in bundle.chain:
        for name, param in link.params.items():
            width = v if param.per_symbol else 1
            default = np.full((1, width), param.default, param.dtype)
            # A name of its own for the first axis: one parameter may have a row for each, another one for all.
            inputs.append(Port(f"{link.name}.{name}", param.dtype, (f"{link.name}.{name}.rows", width), default))
        for name, table in link.tables.items():
            sizes = tuple(f"{link.name}.{name}.{i}" if s is None else s for i, s in enumerate(table.dims))
            default = np.full([1 if s is None else s for s in table.dims], table.neutral, table.dtype)
            inputs.append(Port(f"{link.name}.{name}", table.dtype, sizes, default))
    inputs += [
        Port("stop_table", "int64", ("S", v), np.zeros((1, v), np.int64)),
        Port("stop_final", "bool", ("S",), np.zeros(1, np.bool_)),
    ]
    outputs = [Port("tokens", "int64", ("K", "N")), Port("logprobs", "float32", ("K", "N"))]
    outputs += [dataclasses.replace(one, name=f"{one.name}_out") for one in states]
    outputs.append(Port("logits", "float32", ("N", v)))
    return Signature(tuple(inputs), tuple(outputs), tuple(states), noise)


def _noise_columns(bundle: Bundle) -> dict[str, tuple[int, int]]:
    columns: dict[str, tuple[int, int]] = {}
    at = 0
    for name, count in [*((link.name, link.uniforms) for link in bundle.chain), (DRAW, 1)]:
        if count:
            columns[name] = (at, count)
            at += count
    return columns
