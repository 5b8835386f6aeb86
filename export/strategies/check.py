"""Can a strategy be compiled? Traced alone, without any model: what `gen plugins --check` asks. (spox)"""

from __future__ import annotations

from typing import Any

import numpy as np
import spox
from spox import Tensor

from gentext.chain import Link
from gentext.export.strategies.call import call
from gentext.export.strategies.namespace import xp
from gentext.export.strategies.traced import Traced


def check_compiles(link: Link) -> None:
    """Trace every function of a link once; raise PluginError with the author's line and the rule."""
    strategy = link.strategy
    vocab = strategy.vocab_size
    params = {n: _array(p.dtype, ("N", vocab if p.per_symbol else 1)) for n, p in strategy.params.items()}
    tables = {
        n: _array(t.dtype, [f"{n}{i}" if s is None else s for i, s in enumerate(t.dims)], shared=True)
        for n, t in strategy.tables.items()
    }
    state = {n: _array(s.dtype, ("N", *s.shape)) for n, s in strategy.state.items()}
    noise = _array("float32", ("N", strategy.uniforms)) if strategy.uniforms else None
    call(link, "start", xp, params)
    logits, after = call(link, "apply", xp, _array("float32", ("N", vocab)), params, state, noise, tables)
    if strategy.accepts:
        call(link, "accept", xp, _array("int64", ("N",)), logits, params, after, tables, _array("bool", ("N", 1)))


def _array(dtype: str, shape: Any, *, shared: bool = False) -> Traced:
    return Traced(spox.argument(Tensor(np.dtype(dtype), tuple(shape))), shared=shared)
