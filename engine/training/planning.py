"""Creates the trainer, the model and the batcher of a run, and turns the budget into a number of steps.

Before that, plugins may adapt settings that the user did not set to the text and the budget (hook `adjust_settings`).
How many symbols a budget in minutes reads depends on the machine and on the settings. So the components are created and
a few steps are timed before plugins get such a budget; if they change a setting then, the components are created again.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator
from typing import Any

from gentext.adjustments import Budget, Change, TrainingFacts
from gentext.capabilities import ReadsRecords, SetsTextAside, SupportsProcesses
from gentext.components.creation import OUT_OF_MEMORY
from gentext.config import ConfigTable
from gentext.corpus.split_corpus import SplitCorpus
from gentext.errors import ConfigError, PluginError, reason
from gentext.hookspecs import CORPUS_HOOKS_VERSION
from gentext.interfaces import Batcher, Model, Trainer, TrainingPlan, World
from gentext.manager import host
from gentext.measuring import HeldOut, count_symbols, plan_training
from gentext.runs.model_description import check_model
from gentext.runs.resolve import ConfiguredComponent, configured_component, with_defaults
from gentext.settings import Settings
from gentext.token_corpus import TokenCorpus

#: How many times as much text there is for the rules, where a teacher writes it without end.
ENDLESS_SCALE = 1_000_000


@dataclasses.dataclass
class PreparedTraining:
    """The components of a run, created and ready to train."""

    config: ConfigTable
    """With every option of the components, as the run stores it."""
    trainer: Trainer
    device_description: str
    """Device and precision in one line, as `Trainer.start` returned it."""
    model: Model
    batcher: Batcher
    corpus: SplitCorpus
    settings: Settings
    """Those of the run; once the budget is planned, with the threads that the trainer has chosen."""
    adjustment_note: str = ""
    """One line for the user about the settings that plugins have adjusted, and why; empty where there are none."""
    adjusted_settings: str = ""
    """These settings alone, as ``model.hidden=160``, with commas."""
    _plan: TrainingPlan | None = None

    def plan(self, keep_held_out: bool = False) -> TrainingPlan:
        """Return the budget in steps and the measurements on the way; see `plan_training`.

        The trainer times some steps in the first call; later calls return the same plan.
        """
        if self._plan is None:
            with explain_memory_shortage():
                speed = self.trainer.measure_speed(self.model, self.batcher, self.corpus.train)
            self.settings = dataclasses.replace(self.settings, threads=speed.threads or self.settings.threads)
            self.device_description = speed.device or self.device_description
            held_out = HeldOut(self.corpus.held_out_characters, self.corpus.val.symbols)
            self._plan = plan_training(self.settings, speed, self.batcher, held_out, keep_held_out)
        return self._plan


def adjust_and_prepare(
    config: ConfigTable, corpus: SplitCorpus, settings: Settings, preset: str, adjustable: Collection[str]
) -> PreparedTraining:
    """Let plugins adjust a config to the text and the budget, and prepare training with it as `prepare_training` does.

    ``adjustable`` are the keys, as ``section.name``, that plugins may change; where there are none, as in a run that
    is resumed, the hook is not called. Raises PluginError where plugins change something else, or one key twice.
    """
    if not adjustable:
        return prepare_training(config, corpus, settings)
    symbol_count, vocab_size = corpus.train.symbols, corpus.tokenizer.vocab_size
    model = configured_component(config, "model").target
    scale = ENDLESS_SCALE if corpus.train.is_endless else 1
    facts = TrainingFacts(
        scale * symbol_count, vocab_size, World.of_process().size, preset, model, scale * corpus.train.records
    )
    adjuster = _SettingsAdjuster(with_defaults(config), adjustable, facts)
    adjuster.apply_changes(adjuster.collect_changes(None))
    if settings.minutes is None:
        epochs = settings.epochs or 1.0
        budget = Budget(settings.steps, round(epochs * symbol_count), timed=False)
        adjuster.apply_changes(adjuster.collect_changes(budget))
        prepared = prepare_training(adjuster.config, corpus, settings)
    else:
        prepared = _adjust_to_minutes(adjuster, corpus, settings)
    prepared.adjustment_note = adjuster.describe_changes()
    prepared.adjusted_settings = adjuster.list_changes()
    return prepared


def prepare_training(config: ConfigTable, corpus: SplitCorpus, settings: Settings) -> PreparedTraining:
    """Create the batcher, start the trainer and create the model that a config names.

    Raises PluginError where a component breaks its contract.
    """
    config = with_defaults(config)
    trainer: Trainer = configured_component(config, "trainer").create(settings)
    to_learn = trainer.part_to_learn(corpus.train) if isinstance(trainer, SetsTextAside) else corpus.train
    batcher = create_batcher(
        configured_component(config, "batcher"), configured_component(config, "trainer"), to_learn, settings.seed
    )
    device_description = trainer.start()
    with explain_memory_shortage():
        configured_model = configured_component(config, "model")
        model: Model = configured_model.create(corpus.tokenizer.vocab_size)
        check_model(configured_model.name, model)
    return PreparedTraining(config, trainer, device_description, model, batcher, corpus, settings)


def create_batcher(
    batcher: ConfiguredComponent, trainer: ConfiguredComponent, train: TokenCorpus, seed: int
) -> Batcher:
    """Return the batcher of this process.

    Raises PluginError for a batcher that cannot cut the corpus, or if there are several processes, and the trainer or
    the batcher cannot share a batch.
    """
    world = World.of_process()
    for kind, component in (("batcher", batcher), ("trainer", trainer)):
        _check_hooks_version(kind, component)
    _check_records(batcher, train)
    created_batcher: Batcher = batcher.create(train, world)
    if world.size == 1:
        return created_batcher
    if not (isinstance(trainer.target, SupportsProcesses) and trainer.target.distributed):
        raise PluginError(
            f"the trainer {trainer.name!r} works alone, but there are {world.size} processes; "
            f"train without torchrun, or with trainer.name=bptt"
        )
    local_rows = len(created_batcher.batch(seed, 0, 0, world.rank)[0])
    if local_rows * world.size != created_batcher.rows:
        raise PluginError(
            f"the batcher {batcher.name!r} gave each of {world.size} processes {local_rows} of {created_batcher.rows} "
            f"rows; expected an equal part. Choose another size of batch, or train without torchrun"
        )
    return created_batcher


def _check_hooks_version(kind: str, component: ConfiguredComponent) -> None:
    """Raise PluginError for a batcher or a trainer that does not know yet what it gets."""
    version = host().hooks_version(kind, component.name)
    if version < CORPUS_HOOKS_VERSION:
        registered = host().registry.find(kind, component.name)
        raise PluginError(
            f"{registered.title} was written for version {version} of the hooks; since version "
            f"{CORPUS_HOOKS_VERSION} a {kind} gets a corpus, of text or of records: upgrade "
            f"{registered.distribution.name}, or leave out {kind}.name; its author, where it is so already, adds the "
            f"line gentext_hooks = {CORPUS_HOOKS_VERSION} to the plugin's module"
        )


def _check_records(batcher: ConfiguredComponent, train: TokenCorpus) -> None:
    """Raise PluginError for records where the batcher cuts texts alone."""
    if train.is_records and not (isinstance(batcher.target, ReadsRecords) and batcher.target.reads_records):
        raise PluginError(
            f"the batcher {batcher.name!r} cuts one text, and the corpus is records; leave out batcher.name, or name "
            f"one that reads records"
        )


def _adjust_to_minutes(adjuster: _SettingsAdjuster, corpus: SplitCorpus, settings: Settings) -> PreparedTraining:
    """Let plugins adjust settings to a budget in minutes; return the components with the settings of the last call."""
    prepared = prepare_training(adjuster.config, corpus, settings)
    changes = adjuster.collect_changes(_measured_budget(prepared))
    changes_of_speed = [change for change in changes if _changes_speed(change)]
    if changes_of_speed:
        # The text is read faster or slower with them, which changes what the other settings are adjusted to. The
        # threads are chosen again, too: a larger model may need more of them.
        adjuster.apply_changes(changes_of_speed)
        adjuster.adjustable -= {change.key for change in changes_of_speed}
        prepared = prepare_training(adjuster.config, corpus, settings)
        changes = adjuster.collect_changes(_measured_budget(prepared))
    if not changes:
        return prepared
    adjuster.apply_changes(changes)
    return prepare_training(adjuster.config, corpus, prepared.settings)


def _changes_speed(change: Change) -> bool:
    return change.key.startswith("batcher.") or change.key == "model.hidden"


def _measured_budget(prepared: PreparedTraining) -> Budget:
    steps = prepared.plan().steps
    return Budget(steps=None, symbols=count_symbols(prepared.batcher, steps), timed=True)


class _SettingsAdjuster:
    """A config that plugins adjust, in several calls of the hook `adjust_settings`."""

    def __init__(self, config: ConfigTable, adjustable: Collection[str], facts: TrainingFacts) -> None:
        self.config = config
        self.adjustable = set(adjustable)
        self._text_facts = facts
        self._applied_changes: dict[str, Change] = {}
        #: Name of the plugin that changed a key.
        self._plugin_by_key: dict[str, str] = {}

    def collect_changes(self, budget: Budget | None) -> list[Change]:
        """Call the hook, and return the changes of all plugins. Raises PluginError for one that is not allowed."""
        facts = dataclasses.replace(self._text_facts, budget=budget)
        proposals = host().hooks.adjust_settings(self.config, self.adjustable, facts)
        for plugin, change in proposals:
            self._check_change(plugin, change)
        return [change for _, change in proposals]

    def apply_changes(self, changes: list[Change]) -> None:
        """Put the changes into the config."""
        for change in changes:
            section, _, key = change.key.partition(".")
            self.config[section][key] = change.value
            self._applied_changes[change.key] = change

    def list_changes(self) -> str:
        """Return the settings that were changed, as ``key=value``, with commas."""
        return ", ".join(f"{key}={_format_setting(change.value)}" for key, change in self._applied_changes.items())

    def describe_changes(self) -> str:
        """Return one line about the settings that were changed, or an empty text."""
        if not self._applied_changes:
            return ""
        changes = [
            f"{key}={_format_setting(change.value)} ({change.reason})" for key, change in self._applied_changes.items()
        ]
        return f"for this text and budget: {', '.join(changes)}; another value can be set"

    def _check_change(self, plugin: str, change: Any) -> None:
        """Raise PluginError for anything but a Change, for a key that may not change, and for one of another plugin."""
        if not isinstance(change, Change):
            raise PluginError(
                f"the hook adjust_settings of plugin {plugin} returned {change!r}; "
                f"expected a list of gentext.adjustments.Change"
            )
        if change.key not in self.adjustable:
            raise PluginError(
                f"the hook adjust_settings of plugin {plugin} changes {change.key}, which is not free: it may change "
                f"what only the preset sets"
            )
        first_plugin = self._plugin_by_key.setdefault(change.key, plugin)
        if first_plugin != plugin:
            raise PluginError(
                f"two plugins change {change.key}: {first_plugin} and {plugin}; uninstall one, name the distributions "
                f"to load in GEN_PLUGINS, or set {change.key} yourself"
            )


def _format_setting(setting: Any) -> str:
    """Return a setting's value as the note shows it."""
    is_number = isinstance(setting, int | float) and not isinstance(setting, bool)
    return f"{setting:g}" if is_number else str(setting)


@contextlib.contextmanager
def explain_memory_shortage() -> Iterator[None]:
    """Raise PyTorch's RuntimeError about a shortage of memory as a ConfigError of one line."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        raise ConfigError(
            f"not enough memory for this model and its batches ({reason(error)[:100]}); lower model.hidden, "
            f"model.layers, batcher.batch or batcher.length"
        ) from error
