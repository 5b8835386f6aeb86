"""The sampling chain: links in order. The reference implementation, in NumPy.

Links mask or reweight symbols; `gentext.sampling.draw`, after the last link, chooses one. NumPy 2.1 is itself an Array
API namespace, so strategies get it as ``xp`` without an adapter (importing one would add 65 ms to every start).
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gentext.components import links
from gentext.components.creation import create_component
from gentext.config import build_config, config_class, to_table
from gentext.errors import ConfigError, PluginError, exit_error, refuse_exit
from gentext.noise import DRAW, uniforms
from gentext.registry import Registry
from gentext.strategy import PLACES, Param, Strategy, declaration_problem, mapping_problem, range_problem

if TYPE_CHECKING:
    from gentext.values import Tokenizer

DEFAULT_CHAIN = ("match", "top_k", "top_p", "min_p", "temperature")

#: Arrays of all links, to read: link -> name of one of its parameters, states or tables -> array.
LinkArrays = Mapping[str, Mapping[str, NDArray[Any]]]
#: The same, as dicts that can be filled.
LinkArraysDict = dict[str, dict[str, NDArray[Any]]]


@dataclasses.dataclass(frozen=True)
class Link:
    """One strategy in a chain, with the values of the parameters that a request does not set."""

    name: str
    strategy: Strategy
    defaults: Mapping[str, float]

    def __post_init__(self) -> None:
        for param, number in self.defaults.items():
            check_param(self.name, param, self.strategy.params[param], number)

    def with_options(self, options: Mapping[str, object]) -> Link:
        """Return the link with some options of its Config replaced, given as text."""
        strategy_class = type(self.strategy)
        table = to_table(self.strategy.config) | dict(options)
        config = build_config(config_class(strategy_class), table, f"chain.{self.name}", strict=False)
        with refuse_exit(f"the link {self.name}"):
            strategy = strategy_class(config, self.strategy.vocab_size)
        return dataclasses.replace(self, strategy=strategy)

    def describe(self) -> dict[str, Any]:
        """Return the link as a file's metadata stores it, so that its options can be listed without its code."""
        params = {
            name: {**dataclasses.asdict(param), "default": self.defaults.get(name, param.initial)}
            for name, param in self.strategy.params.items()
        }
        for param in params.values():  # JSON has no infinity
            param["low"] = None if param["low"] == -np.inf else param["low"]
            param["high"] = None if param["high"] == np.inf else param["high"]
        # The initial value of a bool state may be True, which JSON would not write as a number.
        states = {
            name: dataclasses.asdict(state) | {"initial": float(state.initial)}
            for name, state in self.strategy.state.items()
        }
        tables = {
            name: dataclasses.asdict(table) | {"neutral": float(table.neutral)}
            for name, table in self.strategy.tables.items()
        }
        return {
            "name": self.name,
            "config": to_table(self.strategy.config),
            "place": self.strategy.place,
            "switch": self.strategy.switch,
            "ends": self.strategy.ends,
            "uniforms": self.strategy.uniforms,
            "per_run": self.strategy.per_run,
            "params": params,
            "state": states,
            "tables": tables,
        }


def check_param(link: str, name: str, param: Param, number: float) -> None:
    """Raise ConfigError when a number lies outside a parameter's range."""
    problem = range_problem(param, number)
    if problem:
        raise ConfigError(f"{link}.{name} = {number:g}: {problem}")


def build_link(registry: Registry, name: str, vocab_size: int, options: Mapping[str, Any] | None = None) -> Link:
    """Build a link from its registered strategy.

    ``options`` holds fields of the strategy's Config and defaults of its parameters, by name.
    Raises ConfigError for an option that is neither, PluginError when the strategy breaks its contract.
    """
    registered = registry.find("strategy", name)
    strategy_class = registered.load()
    if not (isinstance(strategy_class, type) and issubclass(strategy_class, Strategy)):
        raise PluginError(
            f"the strategy {name!r} of {registered.distribution} is no subclass of gentext.Strategy: {strategy_class!r}"
        )
    options = dict(options or {})
    if problem := mapping_problem("params", strategy_class.params, Param):
        raise PluginError(f"the strategy {name!r}: {problem}")
    defaults = {param: options.pop(param) for param in strategy_class.params if param in options}
    for param, number in defaults.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ConfigError(f"chain.{name}.{param} = {number!r}: expected a number")
    config = build_config(config_class(strategy_class), options, f"chain.{name}")
    strategy = create_component(registered, strategy_class, config, vocab_size)
    if problem := declaration_problem(strategy):
        raise PluginError(f"the strategy {name!r}: {problem}")
    defaults = {param: defaults.get(param, spec.initial) for param, spec in strategy.params.items()}
    return Link(name, strategy, defaults)


def build_chain(
    registry: Registry, names: Sequence[str], vocab_size: int, options: Mapping[str, Any] | None = None
) -> Chain:
    """Build a chain from link names; ``options`` maps a link's name to its options."""
    repeated = [name for name, count in collections.Counter(names).items() if count > 1]
    if repeated:
        raise ConfigError(f"the chain {', '.join(names)} names {repeated[0]!r} twice; a link stands in it at most once")
    options = options or {}
    for name in options:
        if name not in names:
            raise ConfigError(f"options for chain.{name}, but the chain is {', '.join(names) or 'empty'}")
    return Chain([build_link(registry, name, vocab_size, options.get(name)) for name in names])


class Chain:
    """Links in order.

    A chain never changes: parameters and states are passed in, and new states are returned. So several threads may run
    one chain. Raises ConfigError for two links that both must stand last, or one that must stand first and does not.
    """

    def __init__(self, links: Sequence[Link]) -> None:
        self.links = tuple(links)
        last_names = [link.name for link in self.links if link.strategy.place == "last"]
        if len(last_names) > 1:
            raise ConfigError(f"the links {' and '.join(last_names)} must both stand last in the chain; leave one out")
        for link in self.links[1:]:
            if link.strategy.place == "first":
                raise ConfigError(f"the chain {', '.join(self.names)}: {link.name} must stand first; name it first")

    def __iter__(self) -> Iterator[Link]:
        return iter(self.links)

    @property
    def names(self) -> list[str]:
        return [link.name for link in self.links]

    @property
    def follows_text(self) -> bool:
        """Whether a link must see every position in order, the prime's too."""
        return any(link.strategy.accepts or link.strategy.state for link in self.links)

    def with_link(self, link: Link) -> Chain:
        """Return the chain with one more link, before the first whose place comes later (see PLACES)."""
        rank = PLACES.index(link.strategy.place)
        ranks = [PLACES.index(existing.strategy.place) for existing in self.links]
        position = next((i for i, existing in enumerate(ranks) if existing > rank), len(ranks))
        return Chain([*self.links[:position], link, *self.links[position:]])

    def with_options(self, options: Mapping[str, Mapping[str, object]]) -> Chain:
        """Return the chain with options of some links replaced, given as text: link -> field -> text."""
        return Chain([link.with_options(options[link.name]) if link.name in options else link for link in self.links])

    def param_arrays(self, rows: int, param_values: Mapping[str, Mapping[str, float]] | None = None) -> LinkArraysDict:
        """Return every parameter as an array [rows, 1] (or [rows, V]).

        ``param_values`` maps a link's name to numbers for some of its parameters; the others take their
        defaults. Raises ConfigError for a number out of range.
        """
        arrays: LinkArraysDict = {}
        for link in self.links:
            numbers = {**link.defaults, **(param_values or {}).get(link.name, {})}
            arrays[link.name] = {}
            for name, param in link.strategy.params.items():
                check_param(link.name, name, param, numbers[name])
                width = link.strategy.vocab_size if param.per_symbol else 1
                arrays[link.name][name] = np.full((rows, width), numbers[name], dtype=param.dtype)
        return arrays

    def check_params(self, params: LinkArrays, rows: int) -> None:
        """Raise ConfigError for parameters of another shape than [rows, 1] (or [rows, V]), or out of range in a row."""
        for link in self.links:
            for name, param in link.strategy.params.items():
                array, shape = params[link.name][name], (rows, link.strategy.vocab_size if param.per_symbol else 1)
                if array.shape != shape:
                    raise ConfigError(f"{link.name}.{name} has the shape {array.shape}; expected {shape}")
                out_of_range = ~((array >= param.low) & (array <= param.high))
                if out_of_range.any():
                    row, column = np.argwhere(out_of_range)[0]
                    number = array[row, column]
                    raise ConfigError(f"{link.name}.{name} of row {row} = {number:g}: {range_problem(param, number)}")

    def table_arrays(self, tokenizer: Tokenizer | None) -> LinkArraysDict:
        """Return the tables of every link for its own config; None serves links that make no tables.

        Raises PluginError for a table that the strategy does not declare, or declares with another shape.
        """
        arrays: LinkArraysDict = {}
        for link in self.links:
            with refuse_exit(f"the link {link.name}"):
                arrays[link.name] = links.table_arrays(link.name, link.strategy, tokenizer)
        return arrays

    def active(self, params: LinkArrays, tables: LinkArrays) -> Chain:
        """Return the chain without the links that are turned off in every row: see `Strategy.switch`."""
        return Chain([link for link in self.links if not _is_off(link, params[link.name], tables.get(link.name, {}))])

    def initial_state(self, rows: int, params: LinkArrays) -> LinkArraysDict:
        """Return the state of every link before a row's first position. Raises PluginError as `apply` does."""
        states: LinkArraysDict = {}
        for link in self.links:
            with refuse_exit(f"the link {link.name}"):
                states[link.name] = links.start_states(link.name, link.strategy, params[link.name], rows)
        return states

    def noise(self, seed: int, stream: int, position: int, count: int) -> dict[str, NDArray[np.float32]]:
        """Return the uniforms of each link that needs some, and of the draw: name -> float32 [count, columns].

        They are those of the positions from ``position`` on, where 0 is a row's first new token.
        """
        columns = {link.name: link.strategy.uniforms for link in self.links if link.strategy.uniforms}
        columns[DRAW] = 1
        return {name: uniforms(seed, stream, name, position, count, width) for name, width in columns.items()}

    def apply(
        self,
        logits: NDArray[np.float32],
        params: LinkArrays,
        state: LinkArrays,
        noise: Mapping[str, NDArray[np.float32]],
        tables: LinkArrays,
    ) -> tuple[NDArray[np.float32], LinkArraysDict, dict[str, NDArray[np.float32]]]:
        """Run every link's ``apply`` on logits [N, V].

        Returns the final logits, the new states, and the logits after each link, by link, for `accept`. Raises
        PluginError for a link that returns arrays of another shape or type than declared.
        """
        states: LinkArraysDict = {}
        link_logits: dict[str, NDArray[np.float32]] = {}
        with np.errstate(all="ignore"):  # masked symbols have -inf, and NumPy warns of arithmetic on it
            for link in self.links:
                name, strategy = link.name, link.strategy
                try:
                    returned = strategy.apply(
                        np, logits, params[name], state[name], noise.get(name), tables.get(name, {})
                    )
                except SystemExit as error:
                    raise exit_error(f"the link {name}", error) from error
                logits, states[name] = links.check_applied(name, strategy, returned, logits, state[name])
                link_logits[name] = logits
        return logits, states, link_logits

    def accept(
        self,
        token: NDArray[np.int64],
        link_logits: Mapping[str, NDArray[np.float32]],
        params: LinkArrays,
        state: LinkArrays,
        tables: LinkArrays,
        is_new: NDArray[np.bool_],
    ) -> LinkArraysDict:
        """Run every link's ``accept`` on the chosen token [N], and return the new states.

        ``link_logits`` is what `apply` returned; ``is_new`` [N, 1] is false for a token of the prime. Raises
        PluginError as `apply` does.
        """
        states: LinkArraysDict = {link: dict(arrays) for link, arrays in state.items()}
        with np.errstate(all="ignore"):
            for link in self.links:
                name, strategy = link.name, link.strategy
                if not strategy.accepts:
                    continue
                try:
                    returned = strategy.accept(
                        np, token, link_logits[name], params[name], state[name], tables.get(name, {}), is_new
                    )
                except SystemExit as error:
                    raise exit_error(f"the link {name}", error) from error
                states[name] = links.check_link_states(name, strategy, "accept", returned, len(token))
        return states


def _is_off(link: Link, params: Mapping[str, NDArray[Any]], tables: Mapping[str, NDArray[Any]]) -> bool:
    arrays, switches = {**tables, **params}, link.strategy.switches
    # A table that was not made is neutral.
    return bool(switches) and all(
        name not in arrays or bool((arrays[name] == spec.neutral).all()) for name, spec in switches.items()
    )
