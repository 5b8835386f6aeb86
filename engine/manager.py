"""Loads plugins: the built-ins first, then every installed distribution, one at a time.

A distribution that fails costs one line on stderr and nothing else. Environment variables:
``GEN_PLUGINS=""`` loads none, ``GEN_PLUGINS=a,b`` only those distributions (the others are not
even imported), ``GEN_PLUGINS_STRICT=1`` raises where a failure would only be reported.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import re
from collections.abc import Collection, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import pluggy

from gentext import hookspecs
from gentext.config import build_config, config_class
from gentext.console import warn
from gentext.errors import GenError, PluginError, nearest, reason
from gentext.events import Hooks
from gentext.interfaces import OpenSampler
from gentext.registry import KINDS, Component, Provider, Registry, plural

#: The plugins that gentext itself consists of, as dotted names; the engine imports none of them.
BUILTINS = (
    "gentext.plugins.builtin",
    "gentext.plugins.presets.plugin",
    "gentext.plugins.observers.metrics",
    "gentext.plugins.observers.progress",
    "gentext.plugins.observers.samples",
    "gentext.plugins.observers.curves",
    "gentext.plugins.observers.tensorboard",
    "gentext.plugins.sweep.plugin",
    "gentext.export.plugin",
)
GROUP = hookspecs.PROJECT


@dataclasses.dataclass
class Loaded:
    """One plugin, or the attempt to load it."""

    provider: Provider
    origin: str
    """The module it came from."""
    hooks: list[str] = dataclasses.field(default_factory=list)
    components: list[str] = dataclasses.field(default_factory=list)
    """``kind name`` of each component it registered."""
    error: str | None = None


class PluginHost:
    """The plugins of this process, what they register, and their life-cycle hooks."""

    def __init__(self, builtins: Iterable[str] = BUILTINS, *, entry_points: bool = True) -> None:
        self.registry = Registry()
        self.plugins: list[Loaded] = []
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._builtin_plugins: set[int] = set()
        self._strict = os.environ.get("GEN_PLUGINS_STRICT", "") not in ("", "0")
        own = Provider("gentext", _own_version(), builtin=True)
        for name in builtins:
            plugin = importlib.import_module(name)
            self._builtin_plugins.add(id(plugin))
            self._admit(plugin, own, name)
        if entry_points:
            self._load_entry_points()
        self.hooks = Hooks(self._manager, lambda plugin: id(plugin) in self._builtin_plugins)

    def observe(self, plugin: Any) -> None:
        """Let an object of this process see the life of its runs, after everybody else; what it raises ends them."""
        self._builtin_plugins.add(id(plugin))
        self._manager.register(plugin)

    def add_commands(self, cli: Any, own: Collection[str]) -> None:
        """Let every plugin add its commands to the Typer application.

        Each gets an empty application to fill, so that one that fails, or takes the name of
        another command, leaves nothing behind. ``own`` are the names that are taken already.
        """
        import typer.main

        taken = set(own)
        for impl in self._manager.hook.register_commands.get_hookimpls():
            loaded = self._loaded_as(impl.plugin_name)
            if loaded.error:  # said already, for an earlier application
                continue
            filled = typer.Typer()
            try:
                impl.function(*(filled for _ in impl.argnames))
                names = set(typer.main.get_group(filled).commands)  # raises what Typer does not understand
                if names & taken:
                    raise PluginError(f"its command {min(names & taken)!r} exists already; name it otherwise")
            except Exception as error:
                if id(impl.plugin) in self._builtin_plugins:
                    raise
                self._report(loaded, error, "its commands are")
                continue
            taken |= names
            cli.registered_commands += filled.registered_commands
            cli.registered_groups += filled.registered_groups

    def _load_entry_points(self) -> None:
        wanted = os.environ.get("GEN_PLUGINS")
        allowed = None if wanted is None else {_normal(one) for one in wanted.split(",") if one.strip()}
        seen: set[str] = set()
        for point in sorted(metadata.entry_points(group=GROUP), key=lambda one: (_dist(one)[0], one.name)):
            distribution, version = _dist(point)
            seen.add(_normal(distribution))
            if allowed is not None and _normal(distribution) not in allowed:
                continue
            provider = Provider(distribution, version)
            try:
                plugin = point.load()
            except (Exception, SystemExit) as error:
                self._failed(Loaded(provider, point.value), error)
                continue
            self._admit(plugin, provider, point.value)
        for missing in sorted((allowed or set()) - seen):
            warn(f"GEN_PLUGINS names {missing!r}, but no installed distribution of that name offers a plugin")

    def _admit(self, plugin: Any, provider: Provider, origin: str) -> None:
        """Register one plugin and collect its components; on any failure leave no trace of it."""
        loaded = Loaded(provider, origin)
        name = f"{provider.distribution} ({origin})"
        mine: list[Component] = []
        try:
            self._manager.register(plugin, name=name)
            self._check_hook_names(plugin, provider)
            for kind in KINDS:
                hook = getattr(self._manager.hook, f"register_{plural(kind)}")
                register = self.registry.register_for(kind, provider, mine)
                for impl in hook.get_hookimpls():
                    if impl.plugin is plugin:
                        impl.function(*(register for _ in impl.argnames))
        except (Exception, SystemExit) as error:
            self._manager.unregister(plugin) if self._manager.is_registered(plugin) else None
            self.registry.discard(mine)
            if provider.builtin:
                raise
            self._failed(loaded, error)
            return
        callers = self._manager.get_hookcallers(plugin) or []
        loaded.hooks = sorted(caller.name for caller in callers if caller.has_spec())
        loaded.components = [f"{one.kind} {one.name}" for one in mine]
        self.plugins.append(loaded)

    def _check_hook_names(self, plugin: Any, provider: Provider) -> None:
        """Say which functions are marked as hooks but fit none: pluggy would ignore them silently."""
        for caller in self._manager.get_hookcallers(plugin) or []:
            if any(one.wrapper or one.hookwrapper for one in caller.get_hookimpls() if one.plugin is plugin):
                raise PluginError(f"its {caller.name} wraps other plugins' hooks; gentext calls plain hooks only")
            if caller.has_spec():
                continue
            known = [name for name in vars(hookspecs) if hasattr(getattr(hookspecs, name), f"{GROUP}_spec")]
            message = f"{provider} implements the unknown hook {caller.name!r}.{nearest(caller.name, known)}"
            if provider.builtin:
                raise PluginError(message)
            warn(f"{message} It is ignored")

    def _failed(self, loaded: Loaded, error: BaseException) -> None:
        self.plugins.append(loaded)
        self._report(loaded, error)

    def _report(self, loaded: Loaded, error: BaseException, what: str = "it is") -> None:
        if self._strict:
            if isinstance(error, GenError):  # told in one line, which must say whose it is
                raise PluginError(f"plugin {loaded.provider} ({loaded.origin}): {error}") from error
            raise error
        # pluggy says what is wrong on the lines that follow its first.
        whole = isinstance(error, pluggy.PluginValidationError)
        loaded.error = " ".join(str(error).split()) if whole else reason(error)
        line = f"{loaded.provider} ({loaded.origin}): {loaded.error}"
        self.registry.failures.append(line)
        warn(f"plugin {line}; {what} left out. See it all with GEN_PLUGINS_STRICT=1")

    def _loaded_as(self, name: str) -> Loaded:
        return next(one for one in self.plugins if f"{one.provider.distribution} ({one.origin})" == name)


@functools.cache
def host() -> PluginHost:
    """Return the plugins of this process, loading them on first use."""
    return PluginHost()


def open_exported(path: Path, device: str, threads: int = 0) -> OpenSampler:
    """Open a run's exported file, or a file, with the built-in sampler; 0 threads: as many as it chooses."""
    cls = host().registry.get("sampler", "onnx")
    opened: OpenSampler = cls(build_config(config_class(cls), {"threads": threads}, "sampler")).open(path, device)
    return opened


def _own_version() -> str:
    try:
        return metadata.version("gentext")
    except metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return ""


def _normal(name: str) -> str:
    """Return a distribution name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _dist(point: metadata.EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist else (point.module, "")
