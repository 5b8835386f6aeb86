"""Checks what a link hands over: logits, states and tables.

`check_applied` and `check_link_states` run at every position, so they read no array.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gentext.components.arrays import FLOAT32, has_type, type_of
from gentext.errors import PluginError, reason
from gentext.strategy import State, Strategy, Table
from gentext.values import Tokenizer

PAIR_TYPES = (tuple, list)


def check_applied(
    link: str,
    strategy: Strategy,
    returned: object,
    logits: NDArray[np.float32],
    previous_states: Mapping[str, NDArray[Any]],
) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
    """Return the logits and the states that a link's ``apply`` returned for logits [N, V] and its previous states."""
    if not (isinstance(returned, PAIR_TYPES) and len(returned) == 2):
        raise PluginError(f"the link {link}: apply must return logits and states, not {type(returned).__name__}")
    link_logits, states = returned
    if not has_type(link_logits, logits.shape, FLOAT32):
        raise PluginError(
            f"the link {link}: apply must return float32 logits of shape {logits.shape}, not {type_of(link_logits)}"
        )
    if states is previous_states:  # they were checked before
        return link_logits, dict(previous_states)
    return link_logits, check_link_states(link, strategy, "apply", states, len(logits))


def check_link_states(link: str, strategy: Strategy, method: str, states: object, rows: int) -> dict[str, NDArray[Any]]:
    """Return the states of so many rows that a method of a link returned, all that it declares and no others."""
    declared = strategy.state
    if not isinstance(states, Mapping):
        raise PluginError(f"the link {link}: {method} must return states by name, not {type(states).__name__}")
    if states.keys() != declared.keys():
        names = sorted(map(str, states))
        raise PluginError(f"the link {link}: {method} returned the state {names}, declared {sorted(declared)}")
    for name, spec in declared.items():
        shape, dtype = (rows, *spec.shape), np.dtype(spec.dtype)
        if not has_type(states[name], shape, dtype):
            raise PluginError(
                f"the link {link}: after {method}, state {name} is {type_of(states[name])}, declared {dtype} {shape}"
            )
    return dict(states)


def check_nan(logits: NDArray[np.float32], link_logits: Mapping[str, NDArray[np.float32]]) -> None:
    """Raise PluginError for the first link that returned NaN for logits without NaN, which a model itself may give.

    ``link_logits`` are the logits after each link, in the order of the chain.
    """
    for link, returned_logits in link_logits.items():
        if np.isnan(returned_logits).any() and not np.isnan(logits).any():
            raise PluginError(f"the link {link}: the logits have NaN; mask with -inf")
        logits = returned_logits


def start_states(link: str, strategy: Strategy, params: Mapping[str, NDArray[Any]], rows: int) -> dict[str, Any]:
    """Return the states of a link before a row's first position: those of ``start``, and the others as declared."""
    started: object = strategy.start(np, params)
    if not isinstance(started, Mapping):
        raise PluginError(f"the link {link}: start must return states by name, not {type(started).__name__}")
    declared = {name: _full_state(spec, rows) for name, spec in strategy.state.items()}
    return check_link_states(link, strategy, "start", declared | dict(started), rows)


def _full_state(spec: State, rows: int) -> NDArray[Any]:
    return np.full((rows, *spec.shape), spec.initial, spec.dtype)


def table_arrays(link: str, strategy: Strategy, tokenizer: Tokenizer | None) -> dict[str, NDArray[Any]]:
    """Return the tables that a link makes for its own config, the neutral one for each that it leaves out."""
    declared = strategy.tables
    tables: object = strategy.make_tables(tokenizer, strategy.config)
    if not isinstance(tables, Mapping):
        raise PluginError(f"the link {link}: make_tables must return tables by name, not {type(tables).__name__}")
    for name in tables.keys() - declared.keys():
        names = ", ".join(declared) or "none"
        raise PluginError(f"the link {link} makes a table {name!r} that it does not declare ({names})")
    return {name: _table_array(f"{link}.{name}", spec, tables.get(name)) for name, spec in declared.items()}


def neutral_table(spec: Table) -> NDArray[Any]:
    """Return the table of a link that makes none."""
    return np.full([1 if size is None else size for size in spec.dims], spec.neutral, spec.dtype)


def _table_array(name: str, spec: Table, table: Any) -> NDArray[Any]:
    """Return a table as an array of its declared type, the neutral one when it is None."""
    dims = tuple(spec.dims)
    if table is None:
        return neutral_table(spec)
    try:
        array = np.asarray(table, spec.dtype)
    except (TypeError, ValueError) as error:
        raise PluginError(f"the table {name} is no array of {spec.dtype}: {reason(error)}") from error
    if array.ndim != len(dims) or any(
        size not in (None, actual) for size, actual in zip(dims, array.shape, strict=True)
    ):
        raise PluginError(f"the table {name} was made with the shape {array.shape}; declared: {dims}")
    return array
