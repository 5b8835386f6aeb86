"""The base class of a link of the sampling chain, and what its author declares: parameters, states and tables.

A strategy is written once against the Array API (https://data-apis.org/array-api). NumPy runs
it as the reference; the rules in docs/strategies.md keep it traceable into an ONNX graph.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from gentext.config import NoConfig, config_class, per_run_fields

#: An array of whatever namespace is running: NumPy here, a traced array while compiling.
Array = Any
Arrays = Mapping[str, Array]

Place = Literal["first", "penalty", "mask", "shape", "last"]
#: In the order in which they stand in a chain. At most one link of a chain has the place ``first``, and one ``last``.
PLACES: tuple[Place, ...] = ("first", "penalty", "mask", "shape", "last")

#: The largest number that a parameter of each type can hold.
MAX_NUMBER = {"int64": 2.0**63 - 1024, "float32": (2 - 2.0**-23) * 2.0**127}


@dataclasses.dataclass(frozen=True)
class Param:
    """A number that every row of a batch may set for itself.

    The strategy receives it as an array [N, 1], or [N, V] when ``per_symbol``.
    """

    neutral: float
    """The value at which the link changes nothing, bit for bit: the switch alone, or without one all together."""
    help: str
    """One line for ``gen sample --help``."""
    dtype: Literal["float32", "int64"] = "float32"
    low: float = -math.inf
    """Smallest value allowed."""
    high: float = math.inf
    """Largest value allowed."""
    default: float | None = None
    """The value when neither the request nor the chain's config sets one; the neutral one when None."""
    per_symbol: bool = False
    decisive: float | None = None
    """The value at which only one symbol is left, so that no later link has an effect. Only messages use it."""
    is_option: bool = True
    """Whether users set it, by an option of its name; false for one that gentext itself sets in each request."""

    @property
    def initial(self) -> float:
        """The value when neither the request nor the chain's config sets one."""
        return self.neutral if self.default is None else self.default


@dataclasses.dataclass(frozen=True)
class State:
    """An array that each row carries from one position to the next."""

    shape: tuple[int, ...]
    """Shape of one row, without the batch axis; fixed when the strategy is built."""
    dtype: Literal["float32", "int64", "bool"] = "float32"
    initial: float = 0.0
    """The value of every element at a row's first position, unless ``start`` returns another array."""


@dataclasses.dataclass(frozen=True)
class Table:
    """An array shared by all rows, which ``make_tables`` fills in Python."""

    dims: tuple[int | None, ...]
    """Its shape; None where the size depends on the options."""
    dtype: Literal["float32", "int64", "bool"] = "float32"
    neutral: float = 0.0
    """The value of every element when ``make_tables`` returns no such table; each None is then a size of 1."""


def range_problem(param: Param, number: float) -> str | None:
    """Return which numbers a parameter accepts, as "expected ...", or None when it accepts this number."""
    largest = MAX_NUMBER[param.dtype]
    low, high = max(param.low, -largest), min(param.high, largest)
    is_integer = param.dtype == "int64"
    if low <= number <= high and (not is_integer or float(number).is_integer()):
        return None
    description_parts = ["a whole number" if is_integer else "a number"]
    if param.low > -math.inf or number < low:
        description_parts.append(f"from {low:g}")
    if param.high < math.inf or number > high:
        description_parts.append(f"up to {high:g}")
    return f"expected {' '.join(description_parts)}"


class Strategy:
    """Base class of the links of a sampling chain.

    Subclass it, set the class attributes that you need, and write `apply`. Parameters, states and
    tables come as mappings from their names to arrays. The first axis of an array is the rows of
    the batch, but for tables: ``logits`` is float32 [N, V].
    """

    Config: ClassVar[type[Any]] = NoConfig
    params: Mapping[str, Param] = {}
    state: Mapping[str, State] = {}
    tables: Mapping[str, Table] = {}
    uniforms: ClassVar[int] = 0
    """How many uniform numbers in [0, 1) the link needs at each position."""
    place: ClassVar[Place] = "mask"
    """Where the link is inserted when ``--PARAM`` is set and the chain lacks it: among penalties, masks or shapes.

    ``first`` is for a link whose masks decide what the others may choose from, ``last`` for one that must see the
    result of the entire chain; a chain has at most one of each.
    """
    switch: ClassVar[str | None] = None
    """The one parameter that decides whether the link is active; None: all parameters must be neutral to turn it off.

    At its neutral value the link changes nothing, whatever the other parameters are. A link without parameters, but
    with tables, is inactive when all tables are neutral.
    """

    ends: ClassVar[str | None] = None
    """The state, bool of shape (), that becomes true when the link has ended the row; None: it ends no row.

    It becomes true in `accept`, at a token that was drawn, and stays true. That token is no part of the text.
    """

    def __init__(self, config: Any, vocab_size: int) -> None:
        self.config = config
        self.vocab_size = vocab_size

    def start(self, xp: Any, params: Arrays) -> dict[str, Array]:
        """Return initial states that depend on a parameter, by name; the others stay as declared."""
        return {}

    def make_tables(self, tokenizer: Any, options: Any) -> dict[str, Array]:
        """Return the tables for these options, by name. Called in Python once a request, never inside the graph.

        ``options`` is the link's Config; its fields that `gentext.per_run` marks can be set for each
        request. A table that is left out is neutral.
        """
        return {}

    def apply(
        self, xp: Any, logits: Array, params: Arrays, state: Arrays, noise: Array | None, tables: Arrays
    ) -> tuple[Array, Arrays]:
        """Return the logits, masked or reweighted, and the state.

        ``xp`` is the array namespace; ``noise`` is float32 [N, uniforms], or None without any.
        """
        raise TypeError(f"{type(self).__name__} does not define apply")

    def accept(
        self,
        xp: Any,
        token: Array,
        logits: Array,
        params: Arrays,
        state: Arrays,
        tables: Arrays,
        new: Array,
    ) -> Arrays:
        """Return the state after ``token`` (int64 [N]) was chosen.

        ``logits`` is what this link's `apply` returned at the position. ``new`` (bool [N, 1]) is
        false while the prime is read; a forced token may be one that the chain had masked.
        """
        return state

    @property
    def switches(self) -> Mapping[str, Param | Table]:
        """The parameters, or for want of any the tables, that turn the link off when all of them are neutral."""
        if self.switch is not None:
            return {self.switch: self.params[self.switch]}
        return self.params or self.tables

    @property
    def per_run(self) -> list[str]:
        """The options that each request may set, through `make_tables`."""
        return per_run_fields(config_class(type(self)))

    @property
    def makes_tables(self) -> bool:
        """Whether the link overrides `make_tables`, and so needs the tokenizer."""
        return type(self).make_tables is not Strategy.make_tables

    @property
    def accepts(self) -> bool:
        """Whether the link overrides `accept`, and so must see every position in order."""
        return type(self).accept is not Strategy.accept


def mapping_problem(attribute: str, declared: object, declaration_class: type) -> str | None:
    """Return what is wrong with an attribute that must map names to Param, State or Table objects, or None."""
    expected = f"expected a dict of names and {declaration_class.__name__} objects"
    if not isinstance(declared, Mapping):
        return f"{attribute} is {type(declared).__name__}; {expected}"
    for name, declaration in declared.items():
        if not (isinstance(name, str) and name.isidentifier() and isinstance(declaration, declaration_class)):
            return f"{attribute} has {name!r}: {type(declaration).__name__}; {expected}"
    return None


def declaration_problem(strategy: Strategy) -> str | None:
    """Return what is wrong with what a strategy declares in its attributes, or None."""
    uniforms: object = strategy.uniforms
    if isinstance(uniforms, bool) or not isinstance(uniforms, int) or uniforms < 0:
        return f"uniforms is {uniforms!r}; expected a whole number from 0"
    problem = (
        mapping_problem("params", strategy.params, Param)
        or mapping_problem("state", strategy.state, State)
        or mapping_problem("tables", strategy.tables, Table)
    )
    if problem is not None:
        return problem
    names = [*strategy.params, *strategy.state, *strategy.tables]
    if len(set(names)) < len(names):
        return "one name stands for two of its parameters, states and tables"
    if strategy.place not in PLACES:
        return f"place is {strategy.place!r}; expected one of {', '.join(PLACES)}"
    if strategy.switch is not None and strategy.switch not in strategy.params:
        expected = (
            f"one of its parameters ({', '.join(strategy.params)})" if strategy.params else "None: it has no params"
        )
        return f"switch is {strategy.switch!r}; expected {expected}"
    if strategy.ends is not None:
        end_state = strategy.state.get(strategy.ends)
        if end_state is None or (end_state.shape, end_state.dtype, end_state.initial) != ((), "bool", 0):
            return (
                f"ends is {strategy.ends!r}; expected None, or the name of a state State((), 'bool') that begins false"
            )
    return None


def keep_largest(xp: Any, values: Array, count: Array) -> Array:
    """Return which values [N, V] are among the ``count`` (int64 [N, 1], at least 1) largest of their row.

    bool [N, V] with exactly ``count`` true elements in each row; of equal values, those with the lower
    index. A compiled chain computes only max(count) entries, which costs less than sorting all of them.
    """
    # Only the namespace that compiles chains has this function. A Protocol would cost microseconds at every position.
    if hasattr(xp, "keep_largest"):
        return xp.keep_largest(values, count)
    # A stable sort of the negated values puts equal ones in the order of their indices.
    rank = xp.argsort(xp.argsort(-values, axis=1, stable=True), axis=1, stable=True)
    return rank < count


def largest_per_symbol(xp: Any, values: Array, symbols: Array, vocab_size: int, initial: float) -> Array:
    """Return for each symbol the largest of the values at its positions, and at least ``initial``: float32 [N, V].

    ``values`` is float32 [N, W], and ``symbols`` int64 [N, W] says to which symbol each of them belongs. A position
    whose symbol is none of 0 to V - 1, such as -1, is ignored. A symbol without any position gets ``initial``.
    """
    if hasattr(xp, "largest_per_symbol"):  # as in `keep_largest`
        return xp.largest_per_symbol(values, symbols, vocab_size, initial)
    if xp is np:
        largest = np.full((values.shape[0], vocab_size), initial, np.float32)
        rows, positions = np.nonzero((symbols >= 0) & (symbols < vocab_size))
        np.maximum.at(largest, (rows, symbols[rows, positions]), values[rows, positions])
        return largest
    is_symbol = symbols[:, :, None] == xp.arange(vocab_size, dtype=xp.int64)[None, None, :]
    floor = xp.full((values.shape[0], 1, vocab_size), initial, dtype=xp.float32)
    return xp.max(xp.concat([xp.where(is_symbol, values[:, :, None], floor), floor], axis=1), axis=1)
