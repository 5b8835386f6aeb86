"""Traces a strategy alone, without a model: whether it can be compiled, and the graph of one position. (spox)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx
import spox
import spox.opset.ai.onnx.v21 as op
from spox import Tensor, Var

from gentext.export.proto import IR_VERSION
from gentext.export.strategies.call import call_strategy
from gentext.export.strategies.namespace import xp
from gentext.export.strategies.traced import Traced
from gentext.sampling.chain import Link


class _TracedLink(NamedTuple):
    """The graph of one position: the names of its inputs and outputs, as `link_graph` describes them."""

    inputs: dict[str, Var]
    outputs: dict[str, Var]


def check_compiles(link: Link) -> None:
    """Trace every method of a link once; raise PluginError with the author's line and the rule."""
    _trace_link(link)


def link_graph(link: Link) -> onnx.ModelProto:
    """Return the graph of what a link does at one position of N rows. Raises PluginError as `check_compiles` does.

    Its inputs are ``logits``, ``token``, ``new``, ``noise`` where the link has any, and ``param.NAME``, ``table.NAME``
    and ``state.NAME``. Its outputs are ``logits_out``, ``state.NAME_out``, and ``start.NAME`` for the states that
    ``start`` returns.
    """
    inputs, outputs = _trace_link(link)
    # An output must not be an input itself, as a state is that does not change.
    proto = spox.build(inputs, {name: op.identity(var) for name, var in outputs.items()})
    proto.ir_version = IR_VERSION
    return proto


def _trace_link(link: Link) -> _TracedLink:
    strategy = link.strategy
    vocab_size = strategy.vocab_size
    params = {
        name: _traced_input("N", vocab_size if param.per_symbol else 1, dtype=param.dtype)
        for name, param in strategy.params.items()
    }
    tables = {
        name: _traced_input(*_table_sizes(name, table.dims), dtype=table.dtype, shared=True)
        for name, table in strategy.tables.items()
    }
    state = {name: _traced_input("N", *spec.shape, dtype=spec.dtype) for name, spec in strategy.state.items()}
    position = {"logits": _traced_input("N", vocab_size)}
    if strategy.uniforms:
        position["noise"] = _traced_input("N", strategy.uniforms)
    start_state = call_strategy(link, "start", xp, params)
    logits, next_state = call_strategy(
        link, "apply", xp, position["logits"], params, state, position.get("noise"), tables
    )
    if strategy.accepts:
        position |= {"token": _traced_input("N", dtype="int64"), "new": _traced_input("N", 1, dtype="bool")}
        next_state = call_strategy(
            link, "accept", xp, position["token"], logits, params, next_state, tables, position["new"]
        )
    inputs = position | _with_prefix("param.", params) | _with_prefix("table.", tables) | _with_prefix("state.", state)
    outputs = {"logits_out": logits} | _with_prefix("start.", start_state)
    outputs |= {f"state.{name}_out": array for name, array in next_state.items()}
    return _TracedLink(*({name: array.var for name, array in arrays.items()} for arrays in (inputs, outputs)))


def _with_prefix(prefix: str, arrays: dict[str, Traced]) -> dict[str, Traced]:
    return {prefix + name: array for name, array in arrays.items()}


def _table_sizes(name: str, dims: Sequence[int | None]) -> list[int | str]:
    """Return the sizes of a table; a size that depends on the options is open, and gets a name."""
    return [f"{name}{axis}" if size is None else size for axis, size in enumerate(dims)]


def _traced_input(*sizes: int | str, dtype: str = "float32", shared: bool = False) -> Traced:
    return Traced(spox.argument(Tensor(np.dtype(dtype), sizes)), shared=shared)
