"""The hooks of gentext. A plugin is a module (or object) with some of these functions.

An installed distribution offers it under the entry-point group ``gentext``::

    [project.entry-points.gentext]
    my_plugin = "my_package.plugin"

and marks its functions::

    from gentext import hookimpl

    @hookimpl
    def register_strategies(register):
        register("cooler", "my_package.cooler:Cooler", summary="lowers the temperature as it writes")

Every ``gen`` command imports the module, so it must not import heavy packages: a target is ``"module:attribute"``,
which gentext imports when the name is first used. An implementation may leave out parameters that it does not need.

The module may say with ``gentext_hooks = 3`` which version of the hooks it was written for, see `HOOKS_VERSION`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pluggy

from gentext.errors import PluginError

if TYPE_CHECKING:
    from gentext.adjustments import Change, TrainingFacts
    from gentext.config import ConfigTable
    from gentext.events import Progress
    from gentext.registry import Register
    from gentext.run import Run
    from gentext.settings import Settings
    from gentext.values import FitResult

PROJECT = "gentext"
#: The version of the hooks, and of the interfaces of what they register. It grows when a plugin needs something that
#: earlier versions of gentext do not have. A plugin that needs a greater one is not loaded.
HOOKS_VERSION = 3
#: The version from which on batchers and trainers get a `TokenCorpus`.
CORPUS_HOOKS_VERSION = 3
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@runtime_checkable
class DeclaresHooksVersion(Protocol):
    """A plugin that says which version of the hooks it was written for."""

    gentext_hooks: object


def read_hooks_version(plugin: object, distribution: str) -> int:
    """Return the version of the hooks that a plugin declares, 1 where it declares none.

    Raises PluginError for a version that this gentext does not have yet, and for anything but a whole number.
    """
    version = plugin.gentext_hooks if isinstance(plugin, DeclaresHooksVersion) else 1
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise PluginError(f"its gentext_hooks is {version!r:.80}; expected a whole number from 1")
    if version > HOOKS_VERSION:
        raise PluginError(
            f"it needs version {version} of the hooks, and this gentext has version {HOOKS_VERSION}; "
            f"upgrade gentext, or install an earlier version of {distribution}"
        )
    return version


# -- components -------------------------------------------------------------------------------


@hookspec
def register_tokenizers(register: Register) -> None:
    """Register tokenizers: text to ids, and the bytes of each id.

    :param register: call it with ``(name, target, summary=...)``. The target satisfies
        :class:`gentext.interfaces.TokenizerClass`.
    """


@hookspec
def register_batchers(register: Register) -> None:
    """Register batchers: how a corpus becomes batches.

    :param register: call it with ``(name, target, summary=...)``. The target is called as
        ``target(config, corpus, world)`` and gives a :class:`gentext.interfaces.Batcher`.
    """


@hookspec
def register_models(register: Register) -> None:
    """Register models: recurrent networks over symbols.

    :param register: call it with ``(name, target, summary=...)``. The target is called as
        ``target(config, vocab_size)`` and gives a :class:`gentext.interfaces.Model`.
    """


@hookspec
def register_trainers(register: Register) -> None:
    """Register trainers: how a model is fitted.

    :param register: call it with ``(name, target, summary=...)``. The target is called as
        ``target(config, settings)`` and gives a :class:`gentext.interfaces.Trainer`.
    """


@hookspec
def register_samplers(register: Register) -> None:
    """Register samplers: how a trained model is opened and run.

    :param register: call it with ``(name, target, summary=...)``. The target is called as
        ``target(config)`` and gives a :class:`gentext.interfaces.Sampler`.
    """


@hookspec
def register_strategies(register: Register) -> None:
    """Register strategies: links of the sampling chain.

    :param register: call it with ``(name, target, summary=...)``. The target is a subclass of
        :class:`gentext.strategy.Strategy`; the name is the link's name in a chain.
    """


@hookspec
def register_filters(register: Register) -> None:
    """Register filters: which of the records that a model writes are kept.

    :param register: call it with ``(name, target, summary=...)``. The target is called as
        ``target(config)`` and gives a :class:`gentext.interfaces.Filter`.
    """


# -- the command line -------------------------------------------------------------------------


@hookspec
def register_commands(cli: Any) -> None:
    """Add commands to ``gen``.

    :param cli: a :class:`typer.Typer` application; decorate functions with ``@cli.command()``. A name
        that another command has is refused.
    """


# -- before training --------------------------------------------------------------------------


@hookspec
def adjust_settings(config: ConfigTable, free: Collection[str], facts: TrainingFacts) -> Sequence[Change] | None:
    """Adapt settings that the user did not set to the text and the budget of a new run.

    Called before a budget in minutes is measured (``facts.budget`` is None) and after, never for a run that is
    resumed. Return a list of :class:`gentext.adjustments.Change`, which may be empty, or None. A change of a key
    that is not free is refused, and so are changes of one key by two plugins. An error ends the command.

    :param config: a copy of all settings, as tables by section, with every option of the components.
    :param free: the keys, as ``section.name``, that may be changed: those that only the preset sets.
    :param facts: what is known of text, model, budget and machine.
    """


# -- the life of a run, in the order of events ------------------------------------------------


@hookspec
def run_started(run: Run, settings: Settings, progress: Progress) -> None:
    """Training is about to take its first step (or its next, after a resume).

    :param run: the run directory.
    :param settings: budget, device, seed and the like.
    :param progress: ``progress.step`` is the number of steps done: above 0 after a resume.
    """


@hookspec
def step_done(run: Run, progress: Progress) -> None:
    """One optimizer step was taken. It is called after every step, so it must be fast.

    :param run: the run directory.
    :param progress: step, loss and rate.
    """


@hookspec
def evaluated(run: Run, progress: Progress) -> None:
    """The losses were measured; ``progress.measurement`` is set.

    :param run: the run directory.
    :param progress: also carries ``sample``, which writes text with the model as it is.
    """


@hookspec
def checkpoint_saved(run: Run, progress: Progress, path: Path) -> None:
    """A checkpoint was written to the disk.

    :param run: the run directory.
    :param progress: how far training was when the checkpoint was taken.
    :param path: the file.
    """


@hookspec
def run_finished(run: Run, settings: Settings, result: FitResult) -> None:
    """The budget is spent.

    :param run: the run directory.
    :param settings: budget, device, seed and the like.
    :param result: losses of the best checkpoint and the rate.
    """


@hookspec
def export_run(run: Run, settings: Settings) -> None:
    """Write the files by which a run is deployed. The built-in export writes ``model.onnx`` and its generators.

    Called after `run_finished` if ``settings.export`` is true, and by a sweep for its best run. A plugin that works on
    the exported files implements this hook; it is called after the built-in export.

    :param run: the run directory.
    :param settings: ``settings.device`` is where the run was trained.
    """


@hookspec
def run_closed(run: Run) -> None:
    """Training is over, whether it finished, was interrupted or failed. Close files and release other resources here.

    :param run: the run directory.
    """
