"""The space of a sweep: the values to try, for some keys of the config. Reads and checks the TOML file."""

from __future__ import annotations

import dataclasses
import importlib.resources
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gentext.config import ConfigTable, build_config, read_toml, to_table
from gentext.errors import ConfigError, nearest
from gentext.runs.resolve import TrainOptions, configured_component, resolve_config, with_defaults

#: Sections that may differ between trials. Losses with another tokenizer or held-out text could not be compared.
SECTIONS = ("batcher", "model", "trainer")
SettingValue = bool | int | float | str


@dataclasses.dataclass(frozen=True)
class Choices:
    """A list of values to choose from."""

    choices: list[SettingValue]

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError("no choices; expected at least one value")
        if len({repr(choice) for choice in self.choices}) < len(self.choices):
            raise ValueError("a choice stands twice")

    @property
    def probes(self) -> list[SettingValue]:
        """Values to check: when a component accepts them, it accepts all values of the distribution."""
        return self.choices

    def contains(self, setting: Any) -> bool:
        """Return whether a value is one of the choices."""
        return any(setting == choice and type(setting) is type(choice) for choice in self.choices)


@dataclasses.dataclass(frozen=True)
class Range:
    """All numbers from low to high, both included; whole numbers only where both are whole."""

    low: int | float
    high: int | float
    log: bool = False
    """Whether values are drawn evenly by their logarithm: each order of magnitude is as likely as the others."""
    step: int | float | None = None
    """Distance between the values; None stands for 1 with whole numbers, and for any distance with others."""

    def __post_init__(self) -> None:
        range_text = f"low = {self.low}, high = {self.high}"
        if not self.low < self.high:
            raise ValueError(f"{range_text}: upside down; expected low below high")
        if self.log and self.low <= 0:
            raise ValueError(f"{range_text}: a logarithm needs low above 0")
        if self.step is None:
            return
        if self.log:
            raise ValueError("log and step: expected one of them")
        if not 0 < self.step <= self.high - self.low:
            raise ValueError(f"step = {self.step}: expected more than 0 and at most high - low")
        if self.is_integer and not isinstance(self.step, int):
            raise ValueError(f"step = {self.step}: expected a whole number, as low and high are")

    @property
    def is_integer(self) -> bool:
        """Whether the range has whole numbers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def probes(self) -> list[SettingValue]:
        """Values to check: when a component accepts them, it accepts all values of the distribution."""
        return [self.low, self.high]

    def contains(self, setting: Any) -> bool:
        """Return whether a value lies in the range."""
        if isinstance(setting, bool) or not isinstance(setting, int if self.is_integer else int | float):
            return False
        return self.low <= setting <= self.high


#: The values to try for each ``section.key``, in the order of the file.
Space = dict[str, Choices | Range]


def read_space(path: Path | None, *, of_records: bool = False) -> Space:
    """Read a space file, or the built-in one of texts or of records. Raises ConfigError where it is malformed."""
    if path is not None:
        return parse_space(read_toml(path), str(path))
    name = "default_space_records.toml" if of_records else "default_space.toml"
    with importlib.resources.as_file(importlib.resources.files(__package__) / name) as builtin_path:
        return parse_space(read_toml(builtin_path), "the built-in space")


def parse_space(table: Mapping[str, Any], source: str) -> Space:
    """Turn tables by section and key into a space. ``source`` begins the message of a ConfigError."""
    space: Space = {}
    for section, keys in table.items():
        if section not in SECTIONS:
            raise ConfigError(
                f"{source}: [{section}] cannot be swept.{nearest(section, SECTIONS)} Sections: {', '.join(SECTIONS)}"
            )
        if not isinstance(keys, Mapping):
            raise ConfigError(f"{source}: {section} = {keys!r}: expected tables such as [{section}.key]")
        for key, distribution_table in keys.items():
            name = f"{section}.{key}"
            if not isinstance(distribution_table, Mapping):
                raise ConfigError(
                    f"{source}: {name} = {distribution_table!r}: expected [{name}] with choices, or with low and high"
                )
            distribution_class: type[Choices | Range] = Choices if "choices" in distribution_table else Range
            try:
                space[name] = build_config(distribution_class, distribution_table, name)
            except ConfigError as error:
                raise ConfigError(f"{source}: {error}") from None
    if not space:
        raise ConfigError(f"{source}: empty; expected tables such as [model.hidden] with choices, or with low and high")
    return space


def space_table(space: Space) -> ConfigTable:
    """Return a space as the tables that `parse_space` reads."""
    table: ConfigTable = {}
    for name, distribution in space.items():
        section, _, key = name.partition(".")
        table.setdefault(section, {})[key] = to_table(distribution)
    return table


def format_setting(name: str, setting: SettingValue) -> str:
    """Return ``section.key=value`` as ``--set`` takes it."""
    text = json.dumps(setting, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML must escape it, JSON need not
    return f"{name}={text}"


def check_space(space: Space, options: TrainOptions) -> dict[str, SettingValue]:
    """Check every key and value against its component, and return the values of the config that lie in the space.

    The first trial tries these values. Raises ConfigError for a key or a value that the component refuses. Where the
    space has several components in ``section.name``, each of them must have the other keys of the section.
    """
    for name, distribution in space.items():
        section = name.partition(".")[0]
        component_distribution = space.get(f"{section}.name")
        component_settings = [""]  # the component of the options
        if component_distribution is not None and name != f"{section}.name":
            component_settings = [
                format_setting(f"{section}.name", setting) for setting in component_distribution.probes
            ]
        for component_setting, setting in itertools.product(component_settings, distribution.probes):
            settings = [*options.settings, component_setting, format_setting(name, setting)]
            trial_options = dataclasses.replace(options, settings=list(filter(None, settings)))
            configured_component(resolve_config(trial_options), section)
    config = with_defaults(resolve_config(options))
    first_values = {}
    for name, distribution in space.items():
        section, _, key = name.partition(".")
        setting = config[section].get(key)
        if distribution.contains(setting):
            first_values[name] = setting
    return first_values
