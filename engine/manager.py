"""Loads plugins: the built-ins first, then those of every installed distribution, one at a time.

A plugin that fails is reported in one line on stderr and left out. Environment variables:
``GEN_PLUGINS=""`` loads no other distribution's, ``GEN_PLUGINS=a,b`` only those of these distributions (the others
are not even imported), ``GEN_PLUGINS_STRICT=1`` raises where a failure would only be reported.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import re
import threading
from collections.abc import Collection, Iterable
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pluggy

from gentext import hookspecs
from gentext.console import warn
from gentext.errors import GenError, PluginError, nearest, reason, text_of
from gentext.events import Hooks
from gentext.registry import KINDS, Component, Distribution, Registry, plural

if TYPE_CHECKING:
    import typer

#: The plugins that gentext itself consists of, as dotted names; the engine imports none of them.
BUILTINS = (
    "gentext.plugins.builtin",
    "gentext.plugins.presets.plugin",
    "gentext.plugins.observers.metrics",
    "gentext.plugins.observers.progress",
    "gentext.plugins.observers.samples",
    "gentext.plugins.observers.curves",
    "gentext.plugins.observers.tensorboard",
    "gentext.plugins.server.plugin",
    "gentext.plugins.sweep.plugin",
    "gentext.plugins.distill.plugin",
    "gentext.export.plugin",
)
#: The group of entry points under which distributions offer plugins.
ENTRY_POINT_GROUP = hookspecs.PROJECT


@dataclasses.dataclass
class PluginRecord:
    """One plugin that was loaded, or that failed to load."""

    distribution: Distribution
    """The installed distribution that offers it."""
    module: str
    """The module it came from, as its entry point names it."""
    hooks: list[str] = dataclasses.field(default_factory=list)
    """Names of the hooks that it implements."""
    components: list[str] = dataclasses.field(default_factory=list)
    """``kind name`` of each component it registered."""
    hooks_version: int = 1
    """The version of the hooks that it was written for; 1 where it was left out before that was read."""
    error: str | None = None
    """Why it, or its commands, were left out."""

    @property
    def name(self) -> str:
        """The name under which pluggy knows the plugin."""
        return f"{self.distribution.name} ({self.module})"


def is_strict() -> bool:
    """Return whether GEN_PLUGINS_STRICT asks for failures of plugins as they are, and not as one line."""
    return os.environ.get("GEN_PLUGINS_STRICT", "") not in ("", "0")


class PluginHost:
    """The plugins of this process, what they register, and their life-cycle hooks."""

    def __init__(self, builtins: Iterable[str] = BUILTINS, *, entry_points: bool = True) -> None:
        self.registry = Registry()
        self.plugins: list[PluginRecord] = []
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._builtin_plugins: set[int] = set()
        """Ids of the plugin objects whose errors are not caught."""
        own_distribution = Distribution("gentext", builtin=True)
        for module in builtins:
            plugin = importlib.import_module(module)
            self._builtin_plugins.add(id(plugin))
            self._add_plugin(plugin, PluginRecord(own_distribution, module))
        if entry_points:
            self._load_entry_points()
        self.hooks = Hooks(self._manager, self._is_builtin)

    def _is_builtin(self, plugin: object) -> bool:
        return id(plugin) in self._builtin_plugins

    def find_plugin(self, error: BaseException) -> str | None:
        """Return the other distribution whose code an exception came through.

        None where there is no such code, and where gentext's own code raised the exception.
        """
        distribution_by_package: dict[str, Distribution] = {}
        for record in self.plugins:
            if not record.distribution.builtin:
                distribution_by_package[re.split("[.:]", record.module)[0]] = record.distribution
        for component in self.registry:
            if not component.distribution.builtin:
                distribution_by_package[component.module.partition(".")[0]] = component.distribution
        packages: list[str] = []
        """The package of each function on the way to the exception, from the outside in."""
        level = error.__traceback__
        while level is not None:
            packages.append(str(level.tb_frame.f_globals.get("__name__")).partition(".")[0])
            level = level.tb_next
        if packages[-1:] == ["gentext"]:
            return None
        for package in reversed(packages):
            if package in distribution_by_package:
                return str(distribution_by_package[package])
        return None

    def observe(self, plugin: Any) -> None:
        """Register an object of this process as a plugin, which is called after all others.

        An exception in one of its hooks ends the run, as in a built-in plugin.
        """
        self._builtin_plugins.add(id(plugin))
        self._manager.register(plugin)

    def add_commands(self, cli: typer.Typer, reserved: Collection[str], *, builtins: bool = True) -> None:
        """Let every plugin add its commands to the Typer application.

        Each plugin gets an empty application to fill, so that a plugin that fails, or takes the name of another
        command, adds no command at all.

        :param reserved: the names of gentext's own commands, which no other distribution may take.
        :param builtins: whether the built-in plugins are called too. Importing their commands takes time, so they are
            left out when the command is known to be none of theirs.
        """
        import typer.main

        used_names = set(reserved)
        for implementation in self._manager.hook.register_commands.get_hookimpls():
            is_builtin = self._is_builtin(implementation.plugin)
            record = self._find_record(implementation.plugin_name)
            if record.error or (is_builtin and not builtins):  # an error was reported before
                continue
            plugin_cli = typer.Typer()
            try:
                implementation.function(*(plugin_cli for _ in implementation.argnames))
                if not is_builtin:
                    # Building the group raises an error for a signature that Typer does not understand.
                    command_names = set(typer.main.get_group(plugin_cli).commands)
                    if command_names & used_names:
                        raise PluginError(
                            f"its command {min(command_names & used_names)!r} exists already; name it otherwise"
                        )
                    used_names |= command_names
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                if is_builtin:
                    raise
                self._report_left_out(record, error, "its commands are")
                continue
            cli.registered_commands += plugin_cli.registered_commands
            cli.registered_groups += plugin_cli.registered_groups

    def hooks_version(self, kind: str, name: str) -> int:
        """Return the version of the hooks for which a component's plugin was written."""
        for record in self.plugins:
            if f"{kind} {name}" in record.components and not record.distribution.builtin:
                return record.hooks_version
        return hookspecs.HOOKS_VERSION

    def _load_entry_points(self) -> None:
        """Load the plugins of the installed distributions, or of those that GEN_PLUGINS names."""
        gen_plugins = os.environ.get("GEN_PLUGINS")
        allowed_names = None
        if gen_plugins is not None:
            allowed_names = {_normalize_name(name) for name in gen_plugins.split(",") if name.strip()}
        installed_names: set[str] = set()
        entry_points = metadata.entry_points(group=ENTRY_POINT_GROUP)
        for entry_point in sorted(entry_points, key=lambda point: (_find_distribution(point).name, point.name)):
            distribution = _find_distribution(entry_point)
            name = distribution.name
            installed_names.add(_normalize_name(name))
            if allowed_names is not None and _normalize_name(name) not in allowed_names:
                continue
            record = PluginRecord(distribution, entry_point.value)
            try:
                plugin = entry_point.load()
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit, asyncio.CancelledError and others are no Exception
                self._record_failure(record, error)
                continue
            self._add_plugin(plugin, record)
        for missing_name in sorted((allowed_names or set()) - installed_names):
            warn(f"GEN_PLUGINS names {missing_name!r}, but no installed distribution of that name offers a plugin")

    def _add_plugin(self, plugin: Any, record: PluginRecord) -> None:
        """Register one plugin and collect its components; if anything fails, nothing of it stays registered."""
        components: list[Component] = []
        try:
            record.hooks_version = hookspecs.read_hooks_version(plugin, record.distribution.name)
            self._manager.register(plugin, name=record.name)
            self._check_hook_names(plugin, record.distribution)
            self._collect_components(plugin, record.distribution, components)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            self.registry.discard(components)
            if record.distribution.builtin:
                raise
            self._record_failure(record, error)
            return
        hook_callers = self._manager.get_hookcallers(plugin) or []
        record.hooks = sorted(hook_caller.name for hook_caller in hook_callers if hook_caller.has_spec())
        record.components = [f"{component.kind} {component.name}" for component in components]
        self.plugins.append(record)

    def _collect_components(self, plugin: Any, distribution: Distribution, components: list[Component]) -> None:
        """Call the plugin's register hooks, and append to ``components`` what they register."""
        for kind in KINDS:
            hook = getattr(self._manager.hook, f"register_{plural(kind)}")
            register = self.registry.register_for(kind, distribution, components)
            for implementation in hook.get_hookimpls():
                if implementation.plugin is plugin:
                    implementation.function(*(register for _ in implementation.argnames))

    def _check_hook_names(self, plugin: Any, distribution: Distribution) -> None:
        """Warn about functions marked as hooks whose name is not a hook: pluggy would ignore them silently."""
        for hook_caller in self._manager.get_hookcallers(plugin) or []:
            own_implementations = [hookimpl for hookimpl in hook_caller.get_hookimpls() if hookimpl.plugin is plugin]
            if any(hookimpl.wrapper or hookimpl.hookwrapper for hookimpl in own_implementations):
                raise PluginError(f"its {hook_caller.name} wraps other plugins' hooks; gentext calls plain hooks only")
            if hook_caller.has_spec():
                continue
            spec_attribute = f"{hookspecs.PROJECT}_spec"  # which pluggy gives to each specification
            hook_names = [name for name in vars(hookspecs) if hasattr(getattr(hookspecs, name), spec_attribute)]
            advice = nearest(hook_caller.name, hook_names)
            message = f"{distribution} implements the unknown hook {hook_caller.name!r}.{advice}"
            if distribution.builtin:
                raise PluginError(message)
            warn(f"{message} It is ignored")

    def _record_failure(self, record: PluginRecord, error: BaseException) -> None:
        self.plugins.append(record)
        self._report_left_out(record, error, "it is")

    def _report_left_out(self, record: PluginRecord, error: BaseException, part: str) -> None:
        """Warn that a plugin, or a part of it, is left out; raise the error instead with GEN_PLUGINS_STRICT=1."""
        if is_strict():
            # Shown as one line, which must name the plugin. SystemExit itself would end the program without a word.
            if isinstance(error, GenError | SystemExit):
                raise PluginError(f"plugin {record.distribution} ({record.module}): {reason(error)}") from error
            raise error
        if isinstance(error, pluggy.PluginValidationError):  # the reason is in the lines after the first
            record.error = " ".join(text_of(error).split())
        else:
            record.error = reason(error)
        line = f"{record.distribution} ({record.module}): {record.error}"
        self.registry.failures.append(line)
        warn(f"plugin {line}; {part} left out. See it all with GEN_PLUGINS_STRICT=1")

    def _find_record(self, plugin_name: str) -> PluginRecord:
        return next(record for record in self.plugins if record.name == plugin_name)


#: Held while the plugins are loaded, so that several threads get the same ones.
_loading_lock = threading.RLock()


@functools.cache
def _load_plugins() -> PluginHost:
    return PluginHost()


def host() -> PluginHost:
    """Return the plugins of this process, loading them on first use."""
    with _loading_lock:
        return _load_plugins()


def forget_plugins() -> None:
    """Load the plugins again when they are next needed. For tests that install some or change GEN_PLUGINS."""
    _load_plugins.cache_clear()


def _normalize_name(name: str) -> str:
    """Return a distribution name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _find_distribution(entry_point: metadata.EntryPoint) -> Distribution:
    """Return the distribution that offers an entry point."""
    if entry_point.dist is None:
        return Distribution(entry_point.module, "")
    return Distribution(entry_point.dist.name, entry_point.dist.version)
