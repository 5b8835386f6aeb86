"""The variables of a graph in nested dataclasses, lists and dicts: all of them by name, and others in their places."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from spox import Var

from gentext.export.strategies.traced import Traced

Tree = TypeVar("Tree")


def leaves(tree: Any, name: str = "") -> dict[str, Var]:
    """Return the variables of a tree; their names are the paths to them."""
    if isinstance(tree, Var):
        return {name: tree}
    if isinstance(tree, Traced):
        return {name: tree.var}
    found: dict[str, Var] = {}
    for key, child in _children(tree):
        found |= leaves(child, f"{name}.{key}" if name else str(key))
    return found


def replaced(tree: Tree, values: Mapping[str, Var], name: str = "") -> Tree:
    """Return the same tree around other variables."""
    result: Any
    if isinstance(tree, Var):
        result = values[name]
    elif isinstance(tree, Traced):
        result = Traced(values[name], shared=tree.shared)
    else:
        made = {key: replaced(child, values, f"{name}.{key}" if name else str(key)) for key, child in _children(tree)}
        if isinstance(tree, list):
            result = list(made.values())
        else:
            result = made if isinstance(tree, dict) else type(tree)(**made)
    return result  # type: ignore[no-any-return]


def _children(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, dict):
        yield from tree.items()
    elif isinstance(tree, list):
        yield from enumerate(tree)
    else:
        yield from ((field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree))
