"""Named components of six kinds, each imported on first use.

Registering costs nothing: a target is ``"module:attr"`` and stays a string until somebody
asks for it. Built-in names are reserved. Two plugins that take one name do not stop the
program; the clash is reported when that name is used.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from gentext.errors import MissingExtra, PluginError, UnknownComponent, nearest, reason

KINDS = ("tokenizer", "batcher", "model", "trainer", "sampler", "strategy")

#: Top-level modules that an optional dependency group brings.
TRAIN_MODULES = {"torch", "safetensors", "onnx", "onnxscript", "matplotlib", "tomli_w"}


def plural(kind: str) -> str:
    """Return the plural of a kind: strategy -> strategies."""
    return kind[:-1] + "ies" if kind.endswith("y") else kind + "s"


@dataclasses.dataclass(frozen=True)
class Provider:
    """Who registered something: a distribution and its version."""

    distribution: str
    version: str
    builtin: bool = False

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


@dataclasses.dataclass(frozen=True)
class Component:
    """One registered name."""

    kind: str
    name: str
    target: str | Callable[..., Any]
    summary: str
    provider: Provider

    def load(self) -> Any:
        """Import the target, or raise PluginError (MissingExtra for our own optional packages)."""
        if not isinstance(self.target, str):
            return self.target
        module_name, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module_name), attribute)
        except ModuleNotFoundError as error:
            if self.provider.builtin and (error.name or "").split(".")[0] in TRAIN_MODULES:
                raise MissingExtra(f"the {self.kind} {self.name!r}", "train") from None
            raise self._broken(error) from error
        except Exception as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> PluginError:
        return PluginError(
            f"the {self.kind} {self.name!r} of {self.provider} cannot be loaded from {self.target!r}: {reason(error)}"
        )


class Register(Protocol):
    """What a registration hook is called with: ``register(name, target, summary=...)``."""

    def __call__(self, name: str, target: str | Callable[..., Any], *, summary: str) -> None: ...


class Registry:
    """All components, by kind and name."""

    def __init__(self) -> None:
        self._components: dict[tuple[str, str], list[Component]] = {}
        #: One line a plugin that failed to load; shown when a name is not found.
        self.failures: list[str] = []

    def register_for(self, kind: str, provider: Provider, added: list[Component] | None = None) -> Register:
        """Return the ``register`` function that a plugin's hook for ``kind`` is called with.

        What it registers is appended to ``added`` as well.
        """

        def register(name: str, target: str | Callable[..., Any], *, summary: str) -> None:
            component = Component(kind, name, target, summary, provider)
            self.add(component)
            if added is not None:
                added.append(component)

        return register

    def add(self, component: Component) -> None:
        """Add a component, or raise PluginError when it is malformed or takes a built-in's name."""
        _check(component)
        there = self._components.setdefault((component.kind, component.name), [])
        if not component.provider.builtin and any(one.provider.builtin for one in there):
            raise PluginError(
                f"the {component.kind} name {component.name!r} belongs to gentext itself; "
                f"{component.provider} must register another name"
            )
        there.append(component)

    def discard(self, components: Iterable[Component]) -> None:
        """Forget some components; others of the same distribution stay."""
        gone = {id(one) for one in components}
        for key, there in list(self._components.items()):
            self._components[key] = [one for one in there if id(one) not in gone]

    def __iter__(self) -> Iterator[Component]:
        order = {kind: place for place, kind in enumerate(KINDS)}
        for _, there in sorted(self._components.items(), key=lambda item: (order[item[0][0]], item[0][1])):
            yield from there

    def names(self, kind: str) -> list[str]:
        """Return the registered names of one kind, sorted."""
        return sorted(name for (one, name), there in self._components.items() if one == kind and there)

    def find(self, kind: str, name: str) -> Component:
        """Return the component of that name without importing it.

        Raises UnknownComponent with the names there are, the nearest one and any plugin that
        failed to load; PluginError when two distributions share the name.
        """
        there = self._components.get((kind, name), [])
        if len(there) == 1:
            return there[0]
        if there:
            owners = " and ".join(str(one.provider) for one in there)
            raise PluginError(
                f"two plugins register the {kind} {name!r}: {owners}; uninstall one, or name the "
                f"distributions to load in GEN_PLUGINS"
            )
        names = self.names(kind)
        message = f"no {kind} {name!r}. Available: {', '.join(names) or 'none'}.{nearest(name, names)}"
        if self.failures:
            message += " Plugins that failed to load: " + "; ".join(self.failures)
        raise UnknownComponent(message)

    def get(self, kind: str, name: str) -> Any:
        """Import and return the component of that name."""
        return self.find(kind, name).load()


def _check(component: Component) -> None:
    """Raise PluginError when a registration is nonsense."""
    if not isinstance(component.name, str) or not component.name.replace("_", "a").replace("-", "a").isalnum():
        raise PluginError(f"{component.name!r} is no name for a {component.kind}; expected letters, digits, _ or -")
    target = component.target
    if isinstance(target, str):
        module, colon, attribute = target.partition(":")
        well_formed = bool(colon) and all(p.isidentifier() for p in [*module.split("."), attribute])
    else:
        well_formed = callable(target)
    if not well_formed:
        raise PluginError(
            f"the {component.kind} {component.name!r} has the target {target!r}; "
            f"expected 'module:attribute' or something callable"
        )
    if not isinstance(component.summary, str) or not component.summary.strip():
        raise PluginError(f"the {component.kind} {component.name!r} has no summary; expected one line of text")
