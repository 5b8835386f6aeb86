"""What happens in the life of a run, and how the life-cycle hooks are called.

A hook of another distribution that raises is reported once and left out from then on: a broken
progress display must not cost anybody a trained model. Built-in hooks raise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pluggy

from gentext.console import warn
from gentext.errors import GenError, reason

if TYPE_CHECKING:
    from pathlib import Path

    from gentext.interfaces import FitResult
    from gentext.run import Run
    from gentext.settings import Settings


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a training run stands."""

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
    val_loss: float | None = None
    """Nats a symbol on the held-out text; set when it was measured at this step."""
    train_loss: float | None = None
    """The same on an equal stretch of training text, without dropout."""
    sample: Callable[[int], str] | None = None
    """Writes that many characters with the model as it is now; set when val_loss is."""


class Hooks:
    """Calls the life-cycle hooks of every loaded plugin, one implementation at a time."""

    def __init__(self, manager: pluggy.PluginManager, builtin: Callable[[Any], bool]) -> None:
        self._manager = manager
        self._builtin = builtin
        self._broken: set[int] = set()

    def run_started(self, run: Run, settings: Settings, progress: Progress) -> None:
        self._call("run_started", run=run, settings=settings, progress=progress)

    def step_done(self, run: Run, progress: Progress) -> None:
        self._call("step_done", run=run, progress=progress)

    def evaluated(self, run: Run, progress: Progress) -> None:
        self._call("evaluated", run=run, progress=progress)

    def checkpoint_saved(self, run: Run, progress: Progress, path: Path) -> None:
        self._call("checkpoint_saved", run=run, progress=progress, path=path)

    def run_finished(self, run: Run, settings: Settings, result: FitResult) -> None:
        self._call("run_finished", run=run, settings=settings, result=result)

    def export_run(self, run: Run, settings: Settings) -> None:
        self._call("export_run", run=run, settings=settings)

    def run_closed(self, run: Run) -> None:
        self._call("run_closed", run=run)

    def _call(self, name: str, **given: Any) -> None:
        impls = getattr(self._manager.hook, name).get_hookimpls()
        # In the order of loading, the built-ins first; but pluggy's tryfirst and trylast mean what they say.
        for impl in sorted(impls, key=lambda one: one.trylast - one.tryfirst):
            if id(impl) in self._broken:
                continue
            try:
                impl.function(*(given[argument] for argument in impl.argnames))
            except Exception as error:
                if self._builtin(impl.plugin) or isinstance(error, GenError):
                    raise
                self._broken.add(id(impl))
                warn(f"the hook {name} of plugin {impl.plugin_name} failed and is left out: {reason(error)}")


class Silence(Hooks):
    """Hooks that call nobody: of several processes that train together, rank 0 alone tells what happens."""

    def __init__(self) -> None:
        pass

    def _call(self, name: str, **given: Any) -> None:
        pass
