"""Trees of variables: nested dataclasses, lists and dicts with variables of a graph as leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from spox import Var

from gentext.export.strategies.traced import Traced

Tree = TypeVar("Tree")


def flatten(tree: Any, path: str = "") -> dict[str, Var]:
    """Return the variables of a tree in order. Their names are the paths to them, such as ``chain.top_k.count``."""
    if isinstance(tree, Var):
        return {path: tree}
    if isinstance(tree, Traced):
        return {path: tree.var}
    variables: dict[str, Var] = {}
    for key, child in _tree_children(tree):
        variables |= flatten(child, _join_path(path, key))
    return variables


def unflatten(tree: Tree, variables: Mapping[str, Var], path: str = "") -> Tree:
    """Return a tree of the same structure with other variables, named as `flatten` names them."""
    rebuilt: Any
    if isinstance(tree, Var):
        rebuilt = variables[path]
    elif isinstance(tree, Traced):
        rebuilt = Traced(variables[path], shared=tree.shared, facts=tree.facts)
    else:
        children = {key: unflatten(child, variables, _join_path(path, key)) for key, child in _tree_children(tree)}
        if isinstance(tree, list):
            rebuilt = list(children.values())
        elif isinstance(tree, dict):
            rebuilt = children
        else:
            rebuilt = type(tree)(**children)
    return rebuilt  # type: ignore[no-any-return]


def _tree_children(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, dict):
        yield from tree.items()
    elif isinstance(tree, list):
        yield from enumerate(tree)
    else:
        yield from ((field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree))


def _join_path(parent_path: str, key: Any) -> str:
    return f"{parent_path}.{key}" if parent_path else str(key)
