"""The config of a run, merged from a preset, a file and options, and the components that it names."""

from __future__ import annotations

import dataclasses
import importlib.resources
from collections.abc import Callable, Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from gentext.components.creation import create_component
from gentext.config import ConfigTable, build_config, config_class, merge, parse_setting, read_toml, to_table
from gentext.data.in_memory import InMemoryCorpus
from gentext.errors import ConfigError, nearest
from gentext.interfaces import Model, Tokenizer
from gentext.manager import host
from gentext.registry import Component
from gentext.runs.record_options import RecordOptions
from gentext.sampling.chain import DEFAULT_CHAIN
from gentext.sampling.configured_chain import ALL_LINKS
from gentext.settings import BUDGET_UNITS, PLANNED_FIELDS

#: Kinds of components that a config chooses by name, and the component of each kind when it does not.
SECTIONS = {"tokenizer": "char", "batcher": "stream", "model": "lstm", "trainer": "bptt"}
DEFAULT_PRESET = "small"
#: The batcher of records, where the user names none.
RECORD_BATCHER = "records"
#: The batcher and the trainer of a student, where the user names no others.
STUDENT_COMPONENTS = {"batcher": "written", "trainer": "distill"}

#: Loads weights into a new model, given the run's tokenizer and its config; returns one line about it for the user.
InitialWeightsLoader = Callable[[Model, Tokenizer, ConfigTable], str]


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """The options of a training run, from the command line or from the arguments of `gentext.train`."""

    corpus: str | None = None
    in_memory: InMemoryCorpus | None = None
    """What to learn from, where it is no file; then ``corpus`` is None."""
    run: Path | None = None
    preset: str | None = None
    config: Path | None = None
    settings: Sequence[str] = ()
    """``section.key=value`` texts."""
    flags: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of `Settings` that the user has set."""
    records: RecordOptions | None = None
    """How the corpus is cut into records; None: it is one text."""
    val: str | None = None
    """What is held out instead of a part of the corpus: a path, or a name of the catalogue."""
    resume: bool = False
    verbose: bool = False
    """Whether the lines of `gentext.console.detail` are printed."""
    initial_weights: InitialWeightsLoader | None = None
    """Source of a new model's weights; None: random weights."""
    teacher: Path | None = None
    """The run that teaches the model and has the same corpus, see `gentext.corpus.teacher`; None: it has no teacher."""

    @property
    def preset_name(self) -> str:
        """The preset that a new run begins with."""
        return DEFAULT_PRESET if self.preset is None else self.preset


@dataclasses.dataclass(frozen=True)
class ConfiguredComponent:
    """A component that a config names, with its options checked."""

    name: str
    target: Any
    """What was registered under the name: a class, or a function that creates the component."""
    options: Any
    """An instance of the target's ``Config``."""
    registered: Component
    """What the plugin registered."""

    def create(self, *arguments: Any) -> Any:
        """Return ``target(options, ...)``; the arguments are those of its kind, see `gentext.interfaces`."""
        return create_component(self.registered, self.target, self.options, *arguments)

    def to_table(self) -> ConfigTable:
        """Return the component's table of a config file, with every option."""
        return {"name": self.name, **to_table(self.options)}


def configured_component(config: ConfigTable, kind: str) -> ConfiguredComponent:
    """Return the component that a config names for a kind. Raises ConfigError where its options are wrong."""
    table = dict(config[kind])
    name = table.pop("name")
    if not isinstance(name, str):
        raise ConfigError(f"{kind}.name = {name!r}: expected the name of a {kind}")
    registered = host().registry.find(kind, name)
    target = registered.load()
    return ConfiguredComponent(name, target, build_config(config_class(target), table, kind), registered)


def with_defaults(config: ConfigTable) -> ConfigTable:
    """Return a copy of a config in which every option of its components is written out; checks all of them."""
    return {**merge(config), **{kind: configured_component(config, kind).to_table() for kind in SECTIONS}}


def preset_names() -> list[str]:
    """Return the names of the presets."""
    paths = _preset_folder().iterdir()
    return sorted(path.name.removesuffix(".toml") for path in paths if path.name.endswith(".toml"))


def read_preset(name: str) -> ConfigTable:
    """Read a preset, or raise ConfigError naming those there are."""
    if not isinstance(name, str):
        raise ConfigError(f"preset = {name!r}: expected one of {', '.join(preset_names())}")
    if name not in preset_names():
        raise ConfigError(f"no preset {name!r}. Available: {', '.join(preset_names())}.{nearest(name, preset_names())}")
    with importlib.resources.as_file(_preset_folder() / f"{name}.toml") as path:
        return read_toml(path)


def _preset_folder() -> Traversable:
    return importlib.resources.files("gentext.plugins") / "presets"


def resolve_config(options: TrainOptions) -> ConfigTable:
    """Return the config: preset < file < --set < flags. Component options are checked later."""
    defaults: ConfigTable = {kind: {"name": name} for kind, name in SECTIONS.items()}
    if options.teacher is not None:
        defaults |= {kind: {"name": name} for kind, name in STUDENT_COMPONENTS.items()}
    config = {**defaults, "chain": {"links": list(DEFAULT_CHAIN)}}
    section_names = [*SECTIONS, "chain", "run"]
    for layer in [_read_preset_layer(options), *_typed_layers(options)]:
        for section, table in layer.items():
            if section not in section_names:
                raise ConfigError(
                    f"unknown section [{section}].{nearest(section, section_names)} "
                    f"Sections: {', '.join(section_names)}"
                )
            if not isinstance(table, Mapping):
                raise ConfigError(f"{section} = {table!r}: expected a table, for example [{section}]")
        config = _merge_layer(config, layer)
    return config


def adjustable_keys(options: TrainOptions) -> set[str]:
    """Return the keys, as ``section.key``, that only the preset sets: plugins may adjust them."""
    preset_config, typed_config = _read_preset_layer(options), typed_settings(options)
    keys = set()
    for section in SECTIONS:
        preset_table, typed_table = preset_config.get(section, {}), typed_config.get(section, {})
        if typed_table.get("name", preset_table.get("name")) == preset_table.get("name"):
            keys |= {f"{section}.{key}" for key in preset_table.keys() - typed_table.keys() - {"name"}}
    if options.initial_weights:
        keys -= {"model.hidden", "model.ngram_rows"}  # they must be the sizes of the weights that are loaded
    return keys


def _read_preset_layer(options: TrainOptions) -> ConfigTable:
    """Return the settings of the preset; with records, the batcher is theirs, with its defaults.

    A student has batcher and trainer of its own, with the options of the preset's.
    """
    layer = read_preset(options.preset_name)
    if options.teacher is not None:
        layer = merge(layer, {kind: {"name": name} for kind, name in STUDENT_COMPONENTS.items()})
    if options.records is not None:
        batcher = host().registry.get("batcher", RECORD_BATCHER)
        layer["batcher"] = {"name": RECORD_BATCHER, **to_table(config_class(batcher)())}
    return layer


def typed_settings(options: TrainOptions) -> ConfigTable:
    """Return the settings that the user has given, in a file, by ``--set`` and by flags."""
    return merge(*_typed_layers(options))


def _typed_layers(options: TrainOptions) -> list[ConfigTable]:
    """Return the settings that the user has given, the strongest layer last."""
    layers = [read_toml(options.config)] if options.config else []
    layers.append(merge(*map(parse_setting, options.settings)))  # one layer: their order does not matter
    return [*layers, {"run": dict(options.flags)}]


def _merge_layer(config: ConfigTable, layer: Mapping[str, Any]) -> ConfigTable:
    """Merge a stronger layer over a config.

    Where the layer names another component, or another unit of budget, the former options are dropped, or the former
    budget and its measurements. So are the options of links that a new list of links leaves out.
    """
    config = dict(config)
    for section in SECTIONS:
        name = layer.get(section, {}).get("name")
        if name is not None and name != config.get(section, {}).get("name"):
            config[section] = {}
    links = layer.get("chain", {}).get("links")
    if isinstance(links, list) and ALL_LINKS not in links:
        chain = config.get("chain", {})
        config["chain"] = {key: setting for key, setting in chain.items() if key == "links" or key in links}
    if any(budget_unit in layer.get("run", {}) for budget_unit in BUDGET_UNITS):
        dropped_keys = (*BUDGET_UNITS, *PLANNED_FIELDS)
        config["run"] = {key: setting for key, setting in config.get("run", {}).items() if key not in dropped_keys}
    return merge(config, layer)
