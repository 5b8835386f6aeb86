"""The chain that is compiled into a file, built from the file's metadata alone, without importing a plugin."""

from __future__ import annotations

import math

from gentext.config import NoConfig, to_table
from gentext.exported.metadata import Bundle, LinkMeta, ParamMeta
from gentext.sampling.chain import Chain, Link
from gentext.strategy import Param, Strategy


class StoredStrategy(Strategy):
    """A link as a file's metadata describes it, without code to run: its code is in the file's graph."""

    def __init__(self, meta: LinkMeta, vocab_size: int) -> None:
        super().__init__(NoConfig(), vocab_size)
        self.meta = meta
        self.params = {name: _stored_param(param) for name, param in meta.params.items()}
        self.state, self.tables = meta.state, meta.tables
        self.uniforms, self.place = meta.uniforms, meta.place  # type: ignore[misc]
        self.switch, self.ends = meta.switch, meta.ends  # type: ignore[misc]

    @property
    def per_run(self) -> list[str]:
        return self.meta.per_run


def stored_chain(bundle: Bundle) -> Chain:
    """Return the chain that is compiled into a file; only the file's graph can run it."""
    links = []
    for meta in bundle.chain:
        defaults = {name: param.default for name, param in meta.params.items()}
        links.append(Link(meta.name, StoredStrategy(meta, bundle.vocab_size), defaults))
    return Chain(links)


def is_compiled(bundle: Bundle, chain: Chain) -> bool:
    """Return whether a chain is the one that is compiled into a file: the same links in order, with equal options."""
    if bundle.kind != "generator" or chain.names != [meta.name for meta in bundle.chain]:
        return False
    return all(_has_same_options(link.strategy, meta) for link, meta in zip(chain, bundle.chain, strict=True))


def _has_same_options(strategy: Strategy, meta: LinkMeta) -> bool:
    """Compare the options that are compiled into the graph."""
    if isinstance(strategy, StoredStrategy):
        return True
    # Options that each request may set only change tables, which are inputs of the graph.
    options = {name: setting for name, setting in to_table(strategy.config).items() if name not in strategy.per_run}
    return options == {name: setting for name, setting in meta.config.items() if name not in strategy.per_run}


def _stored_param(meta: ParamMeta) -> Param:
    low, high = (-math.inf if meta.low is None else meta.low), (math.inf if meta.high is None else meta.high)
    limits = (low, high, meta.default, meta.per_symbol, meta.decisive)
    return Param(meta.neutral, meta.help, meta.dtype, *limits, meta.is_option)
