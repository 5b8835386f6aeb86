"""Checks whether a strategy can be compiled: traces it alone, without a model, for `gen plugins --check`. (spox)"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import spox
from spox import Tensor

from gentext.chain import Link
from gentext.export.strategies.call import call_strategy
from gentext.export.strategies.namespace import xp
from gentext.export.strategies.traced import Traced


def check_compiles(link: Link) -> None:
    """Trace every method of a link once; raise PluginError with the author's line and the rule."""
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
    noise = _traced_input("N", strategy.uniforms) if strategy.uniforms else None
    call_strategy(link, "start", xp, params)
    logits, next_state = call_strategy(link, "apply", xp, _traced_input("N", vocab_size), params, state, noise, tables)
    if strategy.accepts:
        token, is_new = _traced_input("N", dtype="int64"), _traced_input("N", 1, dtype="bool")
        call_strategy(link, "accept", xp, token, logits, params, next_state, tables, is_new)


def _table_sizes(name: str, dims: Sequence[int | None]) -> list[int | str]:
    """Return the sizes of a table; a size that depends on the options is open, and gets a name."""
    return [f"{name}{axis}" if size is None else size for axis, size in enumerate(dims)]


def _traced_input(*sizes: int | str, dtype: str = "float32", shared: bool = False) -> Traced:
    return Traced(spox.argument(Tensor(np.dtype(dtype), sizes)), shared=shared)
