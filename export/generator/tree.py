"""Trees of variables: nested dataclasses, lists and dicts with variables of a graph as leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from spox import Var

from gentext.export.strategies.traced import Traced

Tree = TypeVar("Tree")


def flatten(tree: Any, name: str = "") -> dict[str, Var]:
    """Return the variables of a tree in order. Their names are the paths to them, such as ``chain.top_k.count``."""
    if isinstance(tree, Var):
        return {name: tree}
    if isinstance(tree, Traced):
        return {name: tree.var}
    variables: dict[str, Var] = {}
    for key, child in _children(tree):
        variables |= flatten(child, _path(name, key))
    return variables


def unflatten(tree: Tree, variables: Mapping[str, Var], name: str = "") -> Tree:
    """Return a tree of the same structure with other variables, named as `flatten` names them."""
    result: Any
    if isinstance(tree, Var):
        result = variables[name]
    elif isinstance(tree, Traced):
        result = Traced(variables[name], shared=tree.shared)
    else:
        children = {key: unflatten(child, variables, _path(name, key)) for key, child in _children(tree)}
        if isinstance(tree, list):
            result = list(children.values())
        elif isinstance(tree, dict):
            result = children
        else:
            result = type(tree)(**children)
    return result  # type: ignore[no-any-return]


def _children(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, dict):
        yield from tree.items()
    elif isinstance(tree, list):
        yield from enumerate(tree)
    else:
        yield from ((field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree))


def _path(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)
