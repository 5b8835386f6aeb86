"""The progress of a run, and how the hooks of a run are called.

If a life-cycle hook of another distribution raises, that is reported once and it is not called again: a broken
progress display must not cost anybody a trained model. An exception in a built-in hook ends the run.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

import pluggy

from gentext.console import warn
from gentext.errors import GenError, PluginError, reason

if TYPE_CHECKING:
    from pathlib import Path

    from gentext.adjustments import Change, TrainingFacts
    from gentext.config import ConfigTable
    from gentext.run import Run
    from gentext.settings import Settings
    from gentext.values import FitResult, Measurement

__all__ = ["Hooks", "Progress", "SilentHooks"]


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a training run is."""

    step: int
    """Steps done, from 0."""
    total_steps: int
    epoch: int
    loss: float
    """Training loss of the last step, in nats a symbol; NaN before the first."""
    rate: float
    """Learning rate of the last step."""
    tokens: int
    """Symbols trained on so far."""
    seconds: float
    """Time spent in training steps, over all resumed parts."""
    first_step: int = 0
    """The step at which this process began; above 0 after a resume."""
    measurement: Measurement | None = None
    """The losses at this step; set when they were measured."""
    sample: Callable[[int], str] | None = None
    """Writes that many characters with the model as it is now; set when ``measurement`` is."""

    @property
    def val_loss(self) -> float | None:
        """Nats a symbol on the held-out text, where it was measured at this step."""
        return self.measurement.val_loss if self.measurement else None


class Hooks:
    """Calls the hooks of a run in every loaded plugin, one implementation at a time."""

    def __init__(self, manager: pluggy.PluginManager, is_builtin: Callable[[Any], bool]) -> None:
        """``is_builtin`` tells whether a plugin is part of gentext."""
        self._manager = manager
        self._is_builtin = is_builtin
        #: Ids of the implementations that have failed.
        self._failed_implementations: set[int] = set()

    def adjust_settings(
        self, config: ConfigTable, free: Collection[str], facts: TrainingFacts
    ) -> list[tuple[str, Change]]:
        """Return the name of a plugin and a change that it proposes, for each change.

        Each plugin gets a copy of the config. Raises PluginError naming the plugin that fails.
        """
        proposals: list[tuple[str, Change]] = []
        for impl in self._implementations("adjust_settings"):
            arguments = {"config": copy.deepcopy(config), "free": frozenset(free), "facts": facts}
            try:
                changes: Any = impl.function(*(arguments[name] for name in impl.argnames))
                proposals += [(impl.plugin_name, change) for change in changes or ()]
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                if self._is_builtin(impl.plugin) or isinstance(error, GenError):
                    raise
                raise PluginError(
                    f"the hook adjust_settings of plugin {impl.plugin_name} failed: {reason(error)}; "
                    f"uninstall it, or name the distributions to load in GEN_PLUGINS"
                ) from error
        return proposals

    def run_started(self, run: Run, settings: Settings, progress: Progress) -> None:
        """Call this hook of all plugins."""
        self._call_hook("run_started", run=run, settings=settings, progress=progress)

    def step_done(self, run: Run, progress: Progress) -> None:
        """Call this hook of all plugins."""
        self._call_hook("step_done", run=run, progress=progress)

    def evaluated(self, run: Run, progress: Progress) -> None:
        """Call this hook of all plugins."""
        self._call_hook("evaluated", run=run, progress=progress)

    def checkpoint_saved(self, run: Run, progress: Progress, path: Path) -> None:
        """Call this hook of all plugins."""
        self._call_hook("checkpoint_saved", run=run, progress=progress, path=path)

    def run_finished(self, run: Run, settings: Settings, result: FitResult) -> None:
        """Call this hook of all plugins."""
        self._call_hook("run_finished", run=run, settings=settings, result=result)

    def export_run(self, run: Run, settings: Settings) -> None:
        """Call this hook of all plugins."""
        self._call_hook("export_run", run=run, settings=settings)

    def run_closed(self, run: Run) -> None:
        """Call this hook of all plugins."""
        self._call_hook("run_closed", run=run)

    def _call_hook(self, hook: str, **arguments: Any) -> None:
        """Call a life-cycle hook of every plugin in which it has not failed yet."""
        for impl in self._implementations(hook):
            if id(impl) in self._failed_implementations:
                continue
            try:
                impl.function(*(arguments[name] for name in impl.argnames))
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit too, which would end a run in the middle
                if self._is_builtin(impl.plugin) or isinstance(error, GenError):
                    raise
                self._failed_implementations.add(id(impl))
                warn(f"the hook {hook} of plugin {impl.plugin_name} failed and is left out: {reason(error)}")

    def _implementations(self, hook: str) -> Iterator[pluggy.HookImpl]:
        """Yield the implementations in the order of loading, the built-ins first.

        Those marked with pluggy's tryfirst come before all others, those marked with trylast after all others.
        """
        impls = getattr(self._manager.hook, hook).get_hookimpls()
        yield from sorted(impls, key=lambda impl: impl.trylast - impl.tryfirst)


class SilentHooks(Hooks):
    """Hooks that do nothing, for all but rank 0 of several processes that train together."""

    def __init__(self) -> None:
        pass

    def _call_hook(self, hook: str, **arguments: Any) -> None:
        pass
