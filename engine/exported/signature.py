"""The inputs and outputs of generator.onnx, for the export that writes it and the samplers that run it.

Sizes that each call may choose: N rows, K positions, S states of the stop automaton, T symbols of ``top_tokens``. V is
the number of symbols. The name of an input or output is that of its tensor in the graph.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from gentext.exported.metadata import Bundle
from gentext.interfaces import Finish
from gentext.noise import DRAW

#: The meaning of the numbers in ``ended``: an index into this tuple for each row.
FINISH_BY_CODE: tuple[Finish, ...] = ("running", "stop", "masked", "match", "end")

#: The input that asks for so many of the most probable symbols, or all where the model has fewer; 0: none.
TOP_COUNT = "top_count"
#: The outputs that have them, which are empty without.
TOP_OUTPUTS = ("top_tokens", "top_logprobs")

#: Inputs with an axis of rows that every call makes anew.
CALL_INPUTS = ("noise", "forced")

Size = int | str


@dataclasses.dataclass(frozen=True)
class Port:
    """One input or output of the graph. A size that is a word, such as ``N``, may differ from call to call."""

    name: str
    dtype: str
    shape: tuple[Size, ...]
    default: Any = None
    """The array of an input that is not fed; None for an input that must be fed."""

    @property
    def row_axis(self) -> int | None:
        """The axis of the rows, or None. A parameter may also have size 1 there: the same for all rows."""
        return next((axis for axis, size in enumerate(self.shape) if size in ("N", f"{self.name}.rows")), None)


@dataclasses.dataclass(frozen=True)
class Signature:
    """Inputs and outputs in order, and the columns of ``noise`` that belong to each name."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: tuple[Port, ...]
    """The inputs that carry a row's state from call to call: each has an output ``NAME_out``."""
    noise: dict[str, tuple[int, int]]
    """Name -> (first column, number of columns): the links that need noise, in chain order, then the draw."""

    @property
    def columns(self) -> int:
        """The number of columns of ``noise``."""
        return sum(count for _, count in self.noise.values())

    @functools.cached_property
    def row_axes(self) -> dict[str, int]:
        """The axis of the rows in each input that a row has or may have of its own: a state, for example."""
        axes = {port.name: port.row_axis for port in self.inputs if port.name not in CALL_INPUTS}
        return {name: axis for name, axis in axes.items() if axis is not None}


def flat_arrays(arrays_by_link: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the parameters, states or tables of links by the names of their inputs: ``link.name``."""
    return {f"{link}.{name}": array for link, arrays in arrays_by_link.items() for name, array in arrays.items()}


def signature(bundle: Bundle) -> Signature:
    """Return the inputs and outputs of a model's generator with the bundle's chain inside.

    An unrolled generator has no most probable symbols: a graph without control flow would compute them in every call.
    """
    vocab_size = bundle.vocab_size
    noise = _noise_columns(bundle)
    state_ports = [
        Port(state.name, state.dtype, tuple("N" if size is None else size for size in state.shape))
        for state in bundle.states
    ]
    for link in bundle.chain:
        state_ports += [
            Port(f"{link.name}.{name}", state.dtype, ("N", *state.shape)) for name, state in link.state.items()
        ]
    state_ports += [Port("stop_state", "int64", ("N",)), Port("ended", "int64", ("N",))]
    inputs = [Port("token", "int64", ("N",)), *state_ports, Port("fresh", "bool", ("N",))]
    columns = sum(count for _, count in noise.values())
    inputs += [Port("noise", "float32", ("K", "N", columns)), Port("forced", "int64", ("K", "N"))]
    for link in bundle.chain:
        for name, param in link.params.items():
            width = vocab_size if param.per_symbol else 1
            default = np.full((1, width), param.default, param.dtype)
            # The first axis has a name of its own: each parameter may have N rows, or one row for all.
            inputs.append(Port(f"{link.name}.{name}", param.dtype, (f"{link.name}.{name}.rows", width), default))
        for name, table in link.tables.items():
            sizes = tuple(
                f"{link.name}.{name}.{axis}" if size is None else size for axis, size in enumerate(table.dims)
            )
            default = np.full([1 if size is None else size for size in table.dims], table.neutral, table.dtype)
            inputs.append(Port(f"{link.name}.{name}", table.dtype, sizes, default))
    inputs += [
        Port("stop_table", "int64", ("S", vocab_size), np.zeros((1, vocab_size), np.int64)),
        Port("stop_final", "bool", ("S",), np.zeros(1, np.bool_)),
    ]
    finds_top_symbols = bundle.kind != "unrolled"
    if finds_top_symbols:
        inputs.append(Port(TOP_COUNT, "int64", (), np.int64(0)))
    outputs = [Port("tokens", "int64", ("K", "N")), Port("logprobs", "float32", ("K", "N"))]
    outputs += [dataclasses.replace(state, name=f"{state.name}_out") for state in state_ports]
    outputs.append(Port("logits", "float32", ("N", vocab_size)))
    if finds_top_symbols:
        dtypes = zip(TOP_OUTPUTS, ("int64", "float32"), strict=True)
        outputs += [Port(name, dtype, ("K", "N", "T")) for name, dtype in dtypes]
    return Signature(tuple(inputs), tuple(outputs), tuple(state_ports), noise)


def _noise_columns(bundle: Bundle) -> dict[str, tuple[int, int]]:
    columns: dict[str, tuple[int, int]] = {}
    first_column = 0
    for name, count in [*((link.name, link.uniforms) for link in bundle.chain), (DRAW, 1)]:
        if count:
            columns[name] = (first_column, count)
            first_column += count
    return columns
