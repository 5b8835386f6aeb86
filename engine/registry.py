"""The registered components: seven kinds, each component with a name. A component is imported when it is first used.

Registering imports nothing: a target is ``"module:attr"`` and stays a string until the component is used.
Built-in names are reserved. Two plugins that register the same name do not stop the program: the
conflict is reported when that name is used.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from gentext.errors import MissingExtra, PluginError, UnknownComponent, nearest, reason
from gentext.files.versions import installed_version

__all__ = ["Register"]

KINDS = ("tokenizer", "batcher", "model", "trainer", "sampler", "strategy", "filter")

#: Top-level modules that come with the `train` extra.
TRAIN_MODULES = {"torch", "safetensors", "onnx", "onnxscript", "spox", "matplotlib", "tomli_w", "filelock"}


def plural(kind: str) -> str:
    """Return the plural of a kind: strategy -> strategies."""
    return kind[:-1] + "ies" if kind.endswith("y") else kind + "s"


@dataclasses.dataclass(frozen=True)
class Distribution:
    """An installed distribution that registers components, and its version."""

    name: str
    stated_version: str | None = None
    """None: `version` looks it up in the metadata of the distribution. That takes milliseconds at every start."""
    builtin: bool = False

    @property
    def version(self) -> str:
        """The version; empty for a source tree that was never installed."""
        if self.stated_version is not None:
            return self.stated_version
        return installed_version(self.name) or ""

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()


@dataclasses.dataclass(frozen=True)
class Component:
    """A component as a plugin has registered it."""

    kind: str
    name: str
    target: str | Callable[..., Any]
    """``module:attribute``, or the component itself."""
    summary: str
    """One line of text."""
    distribution: Distribution

    @property
    def title(self) -> str:
        """How messages name it. The version of the distribution is in it, which takes milliseconds to read."""
        return f"the {self.kind} {self.name!r} of {self.distribution}"

    @property
    def module(self) -> str:
        """The dotted name of the module that defines the target."""
        return self.target.partition(":")[0] if isinstance(self.target, str) else self.target.__module__

    def load(self) -> Any:
        """Import and return the target.

        Raises MissingExtra where a built-in component lacks an optional package, PluginError where the import fails.
        """
        if not isinstance(self.target, str):
            return self.target
        module_name, _, attribute = self.target.partition(":")
        try:
            target = getattr(importlib.import_module(module_name), attribute)
        except ModuleNotFoundError as error:
            if self.distribution.builtin and (error.name or "").split(".")[0] in TRAIN_MODULES:
                raise MissingExtra(f"the {self.kind} {self.name!r}", "train") from None
            raise self._load_error(error) from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._load_error(error) from error
        if not callable(target):
            raise PluginError(
                f"{self.title}: {self.target!r} is {type(target).__name__}; expected a class or a function"
            )
        return target

    def _load_error(self, error: BaseException) -> PluginError:
        return PluginError(f"{self.title} cannot be loaded from {self.target!r}: {reason(error)}")


class Register(Protocol):
    """The function that a registration hook is called with: ``register(name, target, summary=...)``."""

    def __call__(self, name: str, target: str | Callable[..., Any], *, summary: str) -> None: ...


class Registry:
    """All components, by kind and name."""

    def __init__(self) -> None:
        self._components: dict[tuple[str, str], list[Component]] = {}
        #: One line for each plugin that failed to load; shown when a name is not found.
        self.failures: list[str] = []

    def register_for(
        self, kind: str, distribution: Distribution, registered: list[Component] | None = None
    ) -> Register:
        """Return the ``register`` function that a plugin's hook for ``kind`` is called with.

        :param registered: a list to which each registered component is appended as well.
        """

        def register(name: str, target: str | Callable[..., Any], *, summary: str) -> None:
            component = Component(kind, name, target, summary, distribution)
            self.add(component)
            if registered is not None:
                registered.append(component)

        return register

    def add(self, component: Component) -> None:
        """Add a component, or raise PluginError when it is malformed or takes a built-in's name."""
        _check_component(component)
        same_name = self._components.setdefault((component.kind, component.name), [])
        if not component.distribution.builtin and any(other.distribution.builtin for other in same_name):
            raise PluginError(
                f"the {component.kind} name {component.name!r} belongs to gentext itself; "
                f"{component.distribution} must register another name"
            )
        same_name.append(component)

    def discard(self, components: Iterable[Component]) -> None:
        """Remove these very components; equal ones, and others of the same distribution, stay."""
        discarded_ids = {id(component) for component in components}
        for key, same_name in self._components.items():
            self._components[key] = [component for component in same_name if id(component) not in discarded_ids]

    def __iter__(self) -> Iterator[Component]:
        for kind, name in sorted(self._components, key=lambda key: (KINDS.index(key[0]), key[1])):
            yield from self._components[kind, name]

    def registered(self, kind: str) -> list[Component]:
        """Return the components of one kind in the order in which they were registered."""
        return [component for key, components in self._components.items() if key[0] == kind for component in components]

    def names(self, kind: str) -> list[str]:
        """Return the registered names of one kind, sorted."""
        return sorted({component.name for component in self if component.kind == kind})

    def find(self, kind: str, name: str) -> Component:
        """Return the component of that name without importing it.

        Raises UnknownComponent with the registered names, the nearest one and the plugins that
        failed to load; PluginError when two distributions share the name.
        """
        components = self._components.get((kind, name), [])
        if len(components) == 1:
            return components[0]
        if components:
            distributions = " and ".join(str(component.distribution) for component in components)
            raise PluginError(
                f"two plugins register the {kind} {name!r}: {distributions}; uninstall one, or name the "
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


def _check_component(component: Component) -> None:
    """Raise PluginError when a component's name, target or summary is malformed."""
    if not isinstance(component.name, str) or not component.name.replace("_", "a").replace("-", "a").isalnum():
        raise PluginError(f"{component.name!r} is no name for a {component.kind}; expected letters, digits, _ or -")
    target = component.target
    if isinstance(target, str):
        module, separator, attribute = target.partition(":")
        is_well_formed = bool(separator) and all(part.isidentifier() for part in [*module.split("."), attribute])
    else:
        is_well_formed = callable(target)
    if not is_well_formed:
        raise PluginError(
            f"the {component.kind} {component.name!r} has the target {target!r}; "
            f"expected 'module:attribute' or something callable"
        )
    if not isinstance(component.summary, str) or not component.summary.strip():
        raise PluginError(f"the {component.kind} {component.name!r} has no summary; expected one line of text")
