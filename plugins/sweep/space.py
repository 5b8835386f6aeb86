"""The space of a sweep: for keys of the config, the values to try. Read and checked here; plugins draw from it."""

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
from gentext.resolve import TrainOptions, component, resolve, with_defaults

#: What may differ between trials. Another tokenizer or held-out text would make their losses incomparable.
SECTIONS = ("batcher", "model", "trainer")
Value = bool | int | float | str


@dataclasses.dataclass(frozen=True)
class Choices:
    """Some values, one of which is taken."""

    choices: list[Value]

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError("no choices; expected at least one value")
        if len({repr(one) for one in self.choices}) < len(self.choices):
            raise ValueError("a choice stands twice")

    @property
    def probes(self) -> list[Value]:
        """The values that must be right for all of them to be right."""
        return self.choices

    def holds(self, value: Any) -> bool:
        """Tell whether a value is one of them."""
        return any(value == one and type(value) is type(one) for one in self.choices)


@dataclasses.dataclass(frozen=True)
class Range:
    """Everything from low to high, both included: whole numbers where both are."""

    low: int | float
    high: int | float
    log: bool = False
    """Whether each order of magnitude is as likely as the others."""
    step: int | float | None = None
    """Distance of the values; none: 1 for whole numbers, any for others."""

    def __post_init__(self) -> None:
        ends = f"low = {self.low}, high = {self.high}"
        if not self.low < self.high:
            raise ValueError(f"{ends}: upside down; expected low below high")
        if self.log and self.low <= 0:
            raise ValueError(f"{ends}: a logarithm needs low above 0")
        if self.step is None:
            return
        if self.log:
            raise ValueError("log and step: expected one of them")
        if not 0 < self.step <= self.high - self.low:
            raise ValueError(f"step = {self.step}: expected more than 0 and at most high - low")
        if self.whole and not isinstance(self.step, int):
            raise ValueError(f"step = {self.step}: expected a whole number, as low and high are")

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def probes(self) -> list[Value]:
        """The values that must be right for all of them to be right."""
        return [self.low, self.high]

    def holds(self, value: Any) -> bool:
        """Tell whether a value lies in it."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return self.low <= value <= self.high


#: For ``section.key`` the values to try, in the order of the file.
Space = dict[str, Choices | Range]


def read_space(path: Path | None) -> Space:
    """Read a space file, or the built-in one. Raises ConfigError for what is not as it should be."""
    if path is not None:
        return parse_space(read_toml(path), str(path))
    with importlib.resources.as_file(importlib.resources.files(__package__) / "default_space.toml") as builtin:
        return parse_space(read_toml(builtin), "the built-in space")


def parse_space(table: Mapping[str, Any], where: str) -> Space:
    """Turn tables by section and key into a space. ``where`` begins the message of a ConfigError."""
    space: Space = {}
    for section, keys in table.items():
        if section not in SECTIONS:
            raise ConfigError(f"{where}: [{section}] cannot be swept.{nearest(section, SECTIONS)} {_SWEPT}")
        if not isinstance(keys, Mapping):
            raise ConfigError(f"{where}: {section} = {keys!r}: expected tables such as [{section}.key]")
        for key, entry in keys.items():
            name = f"{section}.{key}"
            if not isinstance(entry, Mapping):
                raise ConfigError(f"{where}: {name} = {entry!r}: expected [{name}] with choices, or with low and high")
            cls: type[Choices | Range] = Choices if "choices" in entry else Range
            try:
                space[name] = build_config(cls, entry, name)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from None
    if not space:
        raise ConfigError(f"{where}: empty; expected tables such as [model.hidden] with choices, or with low and high")
    return space


_SWEPT = f"Sections: {', '.join(SECTIONS)}"


def space_table(space: Space) -> ConfigTable:
    """Return a space as the tables that `parse_space` reads."""
    table: ConfigTable = {}
    for name, entry in space.items():
        section, _, key = name.partition(".")
        table.setdefault(section, {})[key] = to_table(entry)
    return table


def setting(name: str, value: Value) -> str:
    """Return ``section.key=value`` as ``--set`` takes it."""
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # where TOML and JSON differ
    return f"{name}={text}"


def check_space(space: Space, options: TrainOptions) -> dict[str, Value]:
    """Check every key and value against its component, and return the values that hold without a sweep.

    Raises ConfigError for a key or a value that the component refuses; with several components
    in ``section.name``, each must know the keys of its section.
    """
    for name, entry in space.items():
        section = name.partition(".")[0]
        called = space.get(f"{section}.name")
        names = [setting(f"{section}.name", one) for one in called.probes] if called else []
        for other, value in itertools.product(names or [""], entry.probes):
            settings = [*options.settings, *([other] if other and name != f"{section}.name" else [])]
            tried = dataclasses.replace(options, settings=[*settings, setting(name, value)])
            component(resolve(tried), section)
    config = with_defaults(resolve(options))
    now = {name: config[section].get(key) for name in space for section, _, key in [name.partition(".")]}
    return {name: value for name, value in now.items() if space[name].holds(value)}
