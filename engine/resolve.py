"""What a run is to do: presets, files and options laid over each other, and the components that they name."""

from __future__ import annotations

import dataclasses
import importlib.resources
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gentext.chain import DEFAULT_CHAIN
from gentext.config import ConfigTable, build_config, config_class, merge, parse_setting, read_toml, to_table
from gentext.errors import ConfigError, nearest
from gentext.interfaces import Tokenizer
from gentext.manager import host
from gentext.plugins.presets.rules import RULED
from gentext.settings import BUDGETS

#: Components that a config chooses by name, and the built-in ones taken when it does not.
SECTIONS = {"tokenizer": "char", "batcher": "stream", "model": "lstm", "trainer": "bptt"}
DEFAULT_PRESET = "small"


#: Puts first weights into a new model, of a tokenizer and a config, and says what it did.
Start = Callable[[Any, Tokenizer, ConfigTable], str]


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """What the command line says about a training run."""

    corpus: str | None = None
    run: Path | None = None
    preset: str | None = None
    config: Path | None = None
    settings: Sequence[str] = ()
    """``section.key=value`` texts."""
    flags: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of `Settings` that were typed."""
    resume: bool = False
    start: Start | None = None
    """Where a new model's weights come from, if not from chance."""


def presets() -> list[str]:
    """Return the names of the presets."""
    return sorted(one.name.removesuffix(".toml") for one in _preset_folder().iterdir() if one.name.endswith(".toml"))


def resolve(options: TrainOptions) -> ConfigTable:
    """Return the config: preset < file < --set < flags. Component options are checked later."""
    table = merge({kind: {"name": name} for kind, name in SECTIONS.items()}, {"chain": {"links": list(DEFAULT_CHAIN)}})
    known = [*SECTIONS, "chain", "run"]
    for layer in [read_preset(_preset(options)), *_typed(options)]:
        for section, value in layer.items():
            if section not in known:
                raise ConfigError(f"unknown section [{section}].{nearest(section, known)} Sections: {', '.join(known)}")
            if not isinstance(value, Mapping):
                raise ConfigError(f"{section} = {value!r}: expected a table, for example [{section}]")
        table = _lay_over(table, layer)
    return table


def untyped(options: TrainOptions) -> set[str]:
    """Return the keys, as ``section.key``, that only the preset sets: its rules may change them."""
    if _preset(options) not in RULED:
        return set()
    preset, typed = read_preset(_preset(options)), merge(*_typed(options))
    keys = set()
    for section in SECTIONS:
        below, above = preset.get(section, {}), typed.get(section, {})
        if above.get("name", below.get("name")) == below.get("name"):
            keys |= {f"{section}.{key}" for key in below.keys() - above.keys()}
    return keys


def _preset(options: TrainOptions) -> str:
    return DEFAULT_PRESET if options.preset is None else options.preset


def _typed(options: TrainOptions) -> list[ConfigTable]:
    """Return what the user says, the strongest last."""
    layers = [read_toml(options.config)] if options.config else []
    layers.append(merge(*map(parse_setting, options.settings)))  # one layer: their order does not matter
    return [*layers, {"run": dict(options.flags)}]


def read_preset(name: str) -> ConfigTable:
    """Read a preset, or raise ConfigError naming those there are."""
    if name not in presets():
        raise ConfigError(f"no preset {name!r}. Available: {', '.join(presets())}.{nearest(name, presets())}")
    with importlib.resources.as_file(_preset_folder() / f"{name}.toml") as path:
        return read_toml(path)


def _preset_folder() -> Any:
    return importlib.resources.files("gentext.plugins") / "presets"


def _lay_over(below: ConfigTable, above: Mapping[str, Any]) -> ConfigTable:
    """Merge two configs; another component, or another unit of budget, replaces what it does not share."""
    below = dict(below)
    for section in SECTIONS:
        name = above.get(section, {}).get("name")
        if name is not None and name != below.get(section, {}).get("name"):
            below[section] = {}
    if any(unit in above.get("run", {}) for unit in BUDGETS):
        below["run"] = {key: value for key, value in below.get("run", {}).items() if key not in BUDGETS}
    return merge(below, above)


def component(config: ConfigTable, kind: str) -> tuple[Any, Any]:
    """Return the class of a config's component and its Config, checked."""
    table = dict(config[kind])
    name = table.pop("name")
    if not isinstance(name, str):
        raise ConfigError(f"{kind}.name = {name!r}: expected the name of a {kind}")
    cls = host().registry.get(kind, name)
    built = build_config(config_class(cls), table, kind)
    config[kind] = {"name": name, **to_table(built)}
    return cls, built
