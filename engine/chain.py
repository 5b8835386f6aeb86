"""The sampling chain: links in order, then the draw. The reference implementation, on NumPy.

Links mask or reweight; only `draw` chooses. NumPy 2.1 is itself an Array API namespace, so it is
handed to the strategies as ``xp`` without an adapter (which would cost 65 ms at every start).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.config import build_config, config_class, to_table
from gentext.errors import ConfigError, PluginError, reason
from gentext.noise import DRAW, uniforms
from gentext.registry import Registry
from gentext.strategy import LARGEST, PLACES, Param, Strategy, Table

DEFAULT_CHAIN = ("top_k", "top_p", "min_p", "temperature")

LinkArraysDict = dict[str, dict[str, NDArray[Any]]]
LinkArrays = Mapping[str, Mapping[str, NDArray[Any]]]


@dataclasses.dataclass(frozen=True)
class Link:
    """One strategy in a chain, with the parameter values used when a request says nothing."""

    name: str
    strategy: Strategy
    defaults: Mapping[str, float]

    def __post_init__(self) -> None:
        for name, value in self.defaults.items():
            check_param(self.name, name, self.strategy.params[name], value)

    def with_options(self, options: Mapping[str, str]) -> Link:
        """Return the link with some options of its Config replaced, given as text."""
        cls = type(self.strategy)
        values = to_table(self.strategy.config) | dict(options)
        config = build_config(config_class(cls), values, f"chain.{self.name}", strict=False)
        return dataclasses.replace(self, strategy=cls(config, self.strategy.vocab_size))

    def describe(self) -> dict[str, Any]:
        """Return what a file's metadata says about the link: enough for options without its code."""
        params = {
            name: {**dataclasses.asdict(param), "default": self.defaults.get(name, param.initial)}
            for name, param in self.strategy.params.items()
        }
        for param in params.values():  # JSON has no infinity
            param["low"] = None if param["low"] == -np.inf else param["low"]
            param["high"] = None if param["high"] == np.inf else param["high"]
        states, tables = self.strategy.state, self.strategy.tables
        return {
            "name": self.name,
            "config": to_table(self.strategy.config),
            "place": self.strategy.place,
            "uniforms": self.strategy.uniforms,
            "per_run": self.strategy.per_run,
            "params": params,
            # A bool is a fair initial value, but no number in JSON.
            "state": {n: dataclasses.asdict(one) | {"initial": float(one.initial)} for n, one in states.items()},
            "tables": {n: dataclasses.asdict(one) | {"neutral": float(one.neutral)} for n, one in tables.items()},
        }


def check_param(link: str, name: str, param: Param, value: float) -> None:
    """Raise ConfigError when a value lies outside a parameter's range."""
    expected = out_of_range(param, value)
    if expected:
        raise ConfigError(f"{link}.{name} = {value:g}: {expected}")


def out_of_range(param: Param, value: float) -> str | None:
    """Return what was expected instead of a value that a parameter cannot have, or None."""
    largest = LARGEST[param.dtype]
    low, high = max(param.low, -largest), min(param.high, largest)
    whole = param.dtype != "int64" or float(value).is_integer()
    if low <= value <= high and whole:
        return None
    kind = "a whole number" if param.dtype == "int64" else "a number"
    bounds = [f"from {low:g}"] if param.low > -np.inf or value < low else []
    bounds += [f"up to {high:g}"] if param.high < np.inf or value > high else []
    return f"expected {' '.join([kind, *bounds])}"


def build_link(registry: Registry, name: str, vocab_size: int, options: Mapping[str, Any] | None = None) -> Link:
    """Build a link from its registered strategy.

    ``options`` holds fields of the strategy's Config and defaults of its parameters, by name.
    Raises ConfigError for what is neither, PluginError when the strategy breaks its contract.
    """
    cls = registry.get("strategy", name)
    if not (isinstance(cls, type) and issubclass(cls, Strategy)):
        raise PluginError(f"the strategy {name!r} is no subclass of gentext.Strategy: {cls!r}")
    options = dict(options or {})
    defaults = {key: options.pop(key) for key in list(options) if key in cls.params}
    for key, value in defaults.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"chain.{name}.{key} = {value!r}: expected a number")
    config = build_config(config_class(cls), options, f"chain.{name}")
    try:
        strategy = cls(config, vocab_size)
    except (TypeError, ValueError) as error:
        raise PluginError(f"the strategy {name!r} cannot be built for {vocab_size} symbols: {reason(error)}") from error
    names = [*strategy.params, *strategy.state, *strategy.tables]
    if len(set(names)) < len(names):
        raise PluginError(f"the strategy {name!r} gives one name to two of its parameters, states and tables")
    if strategy.place not in PLACES:
        raise PluginError(f"the strategy {name!r} has place {strategy.place!r}; expected one of {', '.join(PLACES)}")
    return Link(name, strategy, {p: defaults.get(p, spec.initial) for p, spec in strategy.params.items()})


def build_chain(
    registry: Registry, names: Sequence[str], vocab_size: int, options: Mapping[str, Any] | None = None
) -> Chain:
    """Build a chain from link names; ``options`` maps a link's name to its options."""
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"the chain {', '.join(names)} names {name!r} twice; a link stands in it at most once")
    options = options or {}
    for name in options:
        if name not in names:
            raise ConfigError(f"options for chain.{name}, but the chain is {', '.join(names) or 'empty'}")
    return Chain([build_link(registry, name, vocab_size, options.get(name)) for name in names])


class Chain:
    """Links in order. Holds no state of its own: everything is passed in and returned."""

    def __init__(self, links: Sequence[Link]) -> None:
        self.links = tuple(links)

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
        """Return the chain with one more link at its place: penalties, then masks, then shapes."""
        rank = PLACES.index(link.strategy.place)
        at = next(
            (i for i, one in enumerate(self.links) if PLACES.index(one.strategy.place) > rank),
            len(self.links),
        )
        return Chain([*self.links[:at], link, *self.links[at:]])

    def with_options(self, options: Mapping[str, Mapping[str, str]]) -> Chain:
        """Return the chain with options of some links replaced, given as text: link -> field -> text."""
        return Chain([one.with_options(options[one.name]) if one.name in options else one for one in self.links])

    def param_arrays(self, rows: int, values: Mapping[str, Mapping[str, float]] | None = None) -> LinkArraysDict:
        """Return every parameter as an array [rows, 1] (or [rows, V]), from values or defaults."""
        values = values or {}
        arrays: LinkArraysDict = {}
        for link in self.links:
            given = values.get(link.name, {})
            arrays[link.name] = {}
            for name, param in link.strategy.params.items():
                value = given.get(name, link.defaults[name])
                check_param(link.name, name, param, value)
                width = link.strategy.vocab_size if param.per_symbol else 1
                arrays[link.name][name] = np.full((rows, width), value, dtype=param.dtype)
        return arrays

    def check_params(self, params: LinkArrays, rows: int) -> None:
        """Raise ConfigError for parameters of another shape than [rows, 1] (or [rows, V]), or out of range in a row."""
        for link in self.links:
            for name, param in link.strategy.params.items():
                array, shape = params[link.name][name], (rows, link.strategy.vocab_size if param.per_symbol else 1)
                if array.shape != shape:
                    raise ConfigError(f"{link.name}.{name} has the shape {array.shape}; expected {shape}")
                for row in np.flatnonzero(~((array >= param.low) & (array <= param.high)).all(axis=1))[:1]:
                    wrong = next(one for one in array[row] if not param.low <= one <= param.high)
                    raise ConfigError(f"{link.name}.{name} of row {row} = {wrong:g}: {out_of_range(param, wrong)}")

    def table_arrays(self, tokenizer: Any) -> LinkArraysDict:
        """Return the tables of every link for its own config."""
        tables: LinkArraysDict = {}
        for link in self.links:
            declared = link.strategy.tables
            made = link.strategy.make_tables(tokenizer, link.strategy.config)
            for name in made.keys() - declared.keys():
                known = ", ".join(declared) or "none"
                raise PluginError(f"the link {link.name} makes a table {name!r} that it does not declare ({known})")
            tables[link.name] = {
                name: _table(f"{link.name}.{name}", spec, made.get(name)) for name, spec in declared.items()
            }
        return tables

    def active(self, params: LinkArrays) -> Chain:
        """Return the chain without the links whose parameters are neutral in every row."""
        return Chain([link for link in self.links if not _is_neutral(link, params[link.name])])

    def initial_state(self, rows: int, params: LinkArrays) -> LinkArraysDict:
        """Return the state of every link before a row's first position."""
        states: LinkArraysDict = {}
        for link in self.links:
            declared = {
                name: np.full((rows, *spec.shape), spec.initial, spec.dtype)
                for name, spec in link.strategy.state.items()
            }
            states[link.name] = declared | link.strategy.start(np, params[link.name])
        return states

    def noise(self, seed: int, stream: int, position: int, count: int) -> dict[str, NDArray[np.float32]]:
        """Return the uniforms of each link that asks for some, and of the draw: [count, columns]."""
        asks = {link.name: link.strategy.uniforms for link in self.links if link.strategy.uniforms}
        return {
            name: uniforms(seed, stream, name, position, count, columns) for name, columns in (asks | {DRAW: 1}).items()
        }

    def apply(
        self,
        logits: NDArray[np.float32],
        params: LinkArrays,
        state: LinkArrays,
        noise: Mapping[str, NDArray[np.float32]],
        tables: LinkArrays,
    ) -> tuple[NDArray[np.float32], LinkArraysDict, dict[str, NDArray[np.float32]]]:
        """Run every link's ``apply`` on logits [N, V].

        Returns the final logits, the new states, and what each link returned (for `accept`).
        """
        states: LinkArraysDict = {}
        outputs: dict[str, NDArray[np.float32]] = {}
        with np.errstate(all="ignore"):  # masks are -inf, and -inf minus -inf is no accident here
            for link in self.links:
                name = link.name
                logits, new = link.strategy.apply(
                    np, logits, params[name], state[name], noise.get(name), tables.get(name, {})
                )
                states[name] = dict(new)
                outputs[name] = logits
        return logits, states, outputs

    def accept(
        self,
        token: NDArray[np.int64],
        outputs: Mapping[str, NDArray[np.float32]],
        params: LinkArrays,
        state: LinkArrays,
        tables: LinkArrays,
        new: NDArray[np.bool_],
    ) -> LinkArraysDict:
        """Tell every link which token [N] was chosen; ``new`` [N, 1] is false for the prime."""
        states: LinkArraysDict = {link: dict(one) for link, one in state.items()}
        with np.errstate(all="ignore"):
            for link in self.links:
                name = link.name
                if link.strategy.accepts:
                    states[name] = dict(
                        link.strategy.accept(
                            np, token, outputs[name], params[name], state[name], tables.get(name, {}), new
                        )
                    )
        return states


def draw(logits: NDArray[np.float32], u: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Choose a token for each row of logits [N, V] with uniforms [N, 1].

    The float64 cumulative sum of float32 ``exp(logits - max)``: the first index where it exceeds
    ``u * total``, else the last unmasked one. Nothing is normalised first: that picks masked
    symbols at extreme u. Returns tokens [N] and which rows have everything masked [N].
    """
    top = logits.max(axis=1, keepdims=True)
    masked = ~np.isfinite(top[:, 0])
    with np.errstate(invalid="ignore"):
        weights = np.exp(logits - top)
    running = np.cumsum(weights, axis=1, dtype=np.float64)
    over = running > u.astype(np.float64) * running[:, -1:]
    last = weights.shape[1] - 1 - (weights[:, ::-1] > 0).argmax(axis=1)
    return np.where(over.any(axis=1), over.argmax(axis=1), last).astype(np.int64), masked


def _table(where: str, declared: Table, made: Any) -> NDArray[Any]:
    """Return a table as it is declared, the neutral one when none was made."""
    if made is None:
        return np.full([1 if size is None else size for size in declared.dims], declared.neutral, declared.dtype)
    table = np.asarray(made, declared.dtype)
    open_dims = tuple(None if size is None else found for size, found in zip(declared.dims, table.shape, strict=False))
    if table.ndim != len(declared.dims) or open_dims != tuple(declared.dims):
        raise PluginError(f"the table {where} was made with the shape {table.shape}; declared: {tuple(declared.dims)}")
    return table


def _is_neutral(link: Link, params: Mapping[str, NDArray[Any]]) -> bool:
    specs = link.strategy.params
    return bool(specs) and all(bool((params[name] == spec.neutral).all()) for name, spec in specs.items())
