"""The keyword arguments of `TextModel.write` and its siblings, as the options of a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from gentext.arguments import declared
from gentext.errors import UsageError
from gentext.requests.declaration import WritingOptions
from gentext.requests.options import DEFAULTS


def options_of_arguments(arguments: Mapping[str, object], kind: Any) -> WritingOptions:
    """Return the keyword arguments of a method as options; those that ``kind`` does not declare set links."""
    names = declared(kind)
    given = {name: argument for name, argument in arguments.items() if name in names}
    settings = {name: argument for name, argument in arguments.items() if name not in names}
    options = cast(WritingOptions, {name: given.get(name, default) for name, default in DEFAULTS.items()})
    chain, params = options["chain"], options["params"]
    if not isinstance(params, Mapping | None):
        raise UsageError(f"params = {params!r}: expected a dict such as {{'top_k.top_k': 5}}")
    if isinstance(chain, str):
        raise UsageError(f"chain = {chain!r}: expected a list of links")
    return options | {
        "chain": None if chain is None else list(chain),
        "parameters": {**(params or {}), **settings},
        "stop": stop_strings(options["stop"]),
        "match_prime": bool(options["match_prime"]),
        "echo": bool(options["echo"]),
    }


def stop_strings(stop: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(stop, Iterable):
        raise UsageError(f"stop = {stop!r}: expected a text, or a list of texts")
    return (stop,) if isinstance(stop, str) else tuple(stop)


def check_names(arguments: Mapping[str, object], kind: Any, method: str) -> None:
    """Raise TypeError for an argument that a method does not have, as Python does."""
    for name in arguments.keys() - declared(kind).keys():
        raise TypeError(f"{method}() got an unexpected keyword argument {name!r}")
