"""The chain that a compiled file has inside, known from its metadata: no plugin is imported for it."""

from __future__ import annotations

import math

from gentext.bundle import Bundle, LinkMeta, ParamMeta
from gentext.chain import Chain, Link
from gentext.config import NoConfig, to_table
from gentext.strategy import Param, Strategy


class StoredStrategy(Strategy):
    """A link as a file describes it: everything but its code, which the file carries as a graph."""

    def __init__(self, meta: LinkMeta, vocab_size: int) -> None:
        super().__init__(NoConfig(), vocab_size)
        self.meta = meta
        self.params = {name: _param(one) for name, one in meta.params.items()}
        self.state, self.tables = meta.state, meta.tables
        self.uniforms, self.place = meta.uniforms, meta.place  # type: ignore[misc]

    @property
    def per_run(self) -> list[str]:
        return self.meta.per_run


def stored_chain(bundle: Bundle) -> Chain:
    """Return a file's own chain; only the file's graph can run it."""
    return Chain(
        [
            Link(one.name, StoredStrategy(one, bundle.vocab_size), {n: p.default for n, p in one.params.items()})
            for one in bundle.chain
        ]
    )


def is_compiled(bundle: Bundle, chain: Chain) -> bool:
    """Tell whether a chain is the one that a file has inside: the same links in order, set up alike."""
    if bundle.kind != "generator" or chain.names != [one.name for one in bundle.chain]:
        return False
    return all(_same(link.strategy, meta) for link, meta in zip(chain, bundle.chain, strict=True))


def _same(strategy: Strategy, meta: LinkMeta) -> bool:
    if isinstance(strategy, StoredStrategy):
        return True
    # What may change from run to run goes into tables, which are inputs of the graph.
    own = {key: value for key, value in to_table(strategy.config).items() if key not in strategy.per_run}
    return own == {key: value for key, value in meta.config.items() if key not in strategy.per_run}


def _param(meta: ParamMeta) -> Param:
    low, high = (-math.inf if meta.low is None else meta.low), (math.inf if meta.high is None else meta.high)
    return Param(meta.neutral, meta.help, meta.dtype, low, high, meta.default, meta.per_symbol, meta.decisive)
