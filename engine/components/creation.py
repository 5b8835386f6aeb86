"""Creates components, and checks that each one is what its kind demands, right where it is created.

What a plugin registers may be another thing than it should: a function that returns None, a class that lacks a method,
a constructor that raises. One line then names the component, its plugin and what was expected.
"""

from __future__ import annotations

import re
from typing import Any

from gentext.errors import GenError, PluginError, exit_error, reason
from gentext.manager import is_strict
from gentext.registry import Component
from gentext.strategy import Strategy

#: What a component of each kind must have, see `gentext.interfaces`. A filter is called itself.
REQUIRED_MEMBERS = {
    "tokenizer": ("vocab_size", "unknown", "encode", "unknown_at", "token_bytes", "state"),
    "batcher": ("steps_per_epoch", "symbols_per_epoch", "rows", "length", "batch"),
    "model": ("state_spec", "forward", "step", "initial_state", "parameters", "state_dict", "load_state_dict"),
    "trainer": ("start", "measure_speed", "fit"),
    "sampler": ("open",),
    "strategy": ("apply",),
    "filter": ("__call__",),
}
#: Members that are data; the others are called.
DATA_MEMBERS = {"vocab_size", "unknown", "steps_per_epoch", "symbols_per_epoch", "rows", "length", "state_spec"}
#: How PyTorch says that memory is short, which is no fault of a component.
OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate|not enough memory", re.IGNORECASE)


def create_component(registered: Component, create: Any, *arguments: Any) -> Any:
    """Return ``create(*arguments)``, where ``create`` is what was registered under that name, or a method of it.

    Raises PluginError where it raises an exception, or returns something else than a component of its kind. Errors for
    the user, and a shortage of memory, get through; so do all exceptions of a built-in component, and with
    GEN_PLUGINS_STRICT=1 those of all.
    """
    kind, name, distribution = registered.kind, registered.name, registered.distribution
    try:
        component = create(*arguments)
    except (GenError, KeyboardInterrupt, MemoryError):
        raise
    except SystemExit as error:
        raise exit_error(f"the {kind} {name!r}", error) from error
    except BaseException as error:
        is_shortage = isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error))
        if distribution.builtin or is_strict() or is_shortage:
            raise
        problem = f"{registered.title} cannot be created: {reason(error)}"
        raise PluginError(f"{problem}; GEN_PLUGINS_STRICT=1 shows where") from error
    if missing := missing_members(component, REQUIRED_MEMBERS[kind]):
        raise PluginError(
            f"{registered.title} is {type(component).__name__}, which lacks {', '.join(missing)}; expected a {kind} "
            f"with {', '.join(REQUIRED_MEMBERS[kind])} (docs/hooks.md)"
        )
    return component


def missing_members(component: object, names: tuple[str, ...]) -> list[str]:
    """Return the names that a component does not have, or that it should have as methods and has as data."""
    return [name for name in names if not _has_member(component, name)]


def _has_member(component: object, name: str) -> bool:
    try:
        member = getattr(component, name)
    except KeyboardInterrupt:
        raise
    except BaseException:  # a property of a plugin may raise anything
        return False
    if getattr(member, "__func__", None) is Strategy.apply:  # the one of the base class only raises an error
        return False
    return name in DATA_MEMBERS or callable(member)
