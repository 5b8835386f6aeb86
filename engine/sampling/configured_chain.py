"""The chain that a config or a file describes, and the tables of its links."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gentext.config import CONVERSION_LOCK, ConfigTable, build_config
from gentext.describe import tokenizer_of
from gentext.errors import ConfigError, FileFormatError, nearest
from gentext.exported.metadata import Bundle, LinkMeta
from gentext.registry import Registry
from gentext.sampling.chain import DEFAULT_CHAIN, Chain, LinkArrays, build_chain
from gentext.strategy import PLACES, Place, Strategy

#: Stands for every built-in link where links are named, see `_expand_all`.
ALL_LINKS = "all"


@dataclasses.dataclass(frozen=True)
class ChainConfig:
    """The table ``[chain]``; ``[chain.LINK]`` holds a link's options and parameter defaults."""

    links: list[str] = dataclasses.field(default_factory=lambda: list(DEFAULT_CHAIN))
    """The links in order; ``"all"`` stands for every built-in one that the list does not name."""


def configured_chain(registry: Registry, table: ConfigTable, vocab_size: int) -> Chain:
    """Build the chain that a config's table ``[chain]`` describes."""
    link_options = {name: setting for name, setting in table.items() if isinstance(setting, Mapping)}
    fields = {name: setting for name, setting in table.items() if name not in link_options}
    names = _expand_all(registry, build_config(ChainConfig, fields, "chain").links)
    return build_chain(registry, names, vocab_size, link_options)


def describe_links(chain: Chain) -> list[LinkMeta]:
    """Return a chain as a file's metadata stores it."""
    with CONVERSION_LOCK:
        return msgspec.convert([link.describe() for link in chain], list[LinkMeta])


def builtin_strategies(registry: Registry) -> list[str]:
    """Return the names of the built-in links. A plugin's link is imported only when the chain or the file names it."""
    return [component.name for component in registry.registered("strategy") if component.distribution.builtin]


def _expand_all(registry: Registry, names: Sequence[str]) -> Sequence[str]:
    """Return link names, where ``all`` stands for the built-in links that are not named, in the order of their places.

    A chain has at most one link that stands last: ``all`` holds the first of these, and none where another is named.
    """
    if ALL_LINKS not in names:
        return names
    position = list(names).index(ALL_LINKS)
    before, behind = names[:position], names[position + 1 :]
    if ALL_LINKS in behind:
        raise ConfigError(f"the chain {', '.join(names)} names {ALL_LINKS!r} twice; once is enough")
    strategies = {name: registry.get("strategy", name) for name in [*before, *behind, *builtin_strategies(registry)]}
    last_names = [name for name, strategy in strategies.items() if _place_of(strategy) == "last"]
    unnamed = [name for name in strategies if name not in (*before, *behind, *last_names[1:])]
    expanded = [*before, *sorted(unnamed, key=lambda name: PLACES.index(_place_of(strategies[name]))), *behind]
    return sorted(expanded, key=lambda name: _place_of(strategies[name]) != "first")  # stable: it moves this one alone


def _place_of(strategy: object) -> Place:
    """Return the place of a strategy's class; what is no strategy, which `build_link` refuses, has the usual one."""
    if isinstance(strategy, type) and issubclass(strategy, Strategy) and strategy.place in PLACES:
        return strategy.place
    return Strategy.place


def chain_of(bundle: Bundle, registry: Registry, names: Sequence[str] | None = None) -> Chain:
    """Build a file's default chain (``names`` is None), or another one from link names, of which one may be ``all``.

    Links of the file's chain keep the file's options and defaults. Raises FileFormatError when the file
    and the installed strategy disagree, UnknownComponent when a strategy is not installed.
    """
    file_links = {link.name: link for link in bundle.chain}
    names = list(file_links) if names is None else _expand_all(registry, names)
    options = {name: _checked_options(registry, file_links[name]) for name in names if name in file_links}
    return build_chain(registry, names, bundle.vocab_size, options)


def _checked_options(registry: Registry, meta: LinkMeta) -> dict[str, Any]:
    """Return a stored link's options and defaults, checked against the installed strategy."""
    installed_params = registry.get("strategy", meta.name).params
    for name in meta.params:
        if name not in installed_params:
            raise FileFormatError(
                f"the file's link {meta.name!r} has a parameter {name!r} that the installed strategy does not know."
                f"{nearest(name, installed_params)} Install the version of the plugin that it was exported with"
            )
    return {**meta.config, **{name: param.default for name, param in meta.params.items()}}


def make_tables(chain: Chain, bundle: Bundle) -> LinkArrays:
    """Return the tables of a chain's links.

    Only links that make tables need the tokenizer, whose plugin may not be installed. The links of a compiled file
    keep the tables that they were compiled with.
    """
    if not any(link.strategy.makes_tables for link in chain):
        return {}
    return chain.table_arrays(tokenizer_of(bundle))
