"""Typed options: one frozen dataclass for each component, filled from presets, TOML and the command line.

A value comes from the strongest of these that has it, from weakest to strongest: class default, preset, ``--config``
file, ``--set``, flag. msgspec converts and checks; this module adds the merging and the wording of errors.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import math
import re
import textwrap
import threading
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from gentext.errors import ConfigError, nearest
from gentext.files.reading import MAX_DEPTH, check_data, read_file

__all__ = ["Fraction", "NoConfig", "NonNegative", "NonNegativeFloat", "Positive", "PositiveFloat", "per_run"]

#: Ready-made ranges for the fields of a Config: ``hidden: Positive = 512``.
Positive = Annotated[int, msgspec.Meta(ge=1)]
NonNegative = Annotated[int, msgspec.Meta(ge=0)]
PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]
NonNegativeFloat = Annotated[float, msgspec.Meta(ge=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, lt=1)]

#: Held while msgspec converts: it examines a type on first use, and crashes the process when two threads do that at
#: once (seen with version 0.22).
CONVERSION_LOCK = threading.RLock()

#: Bytes of a TOML file, at most. The config of a run has two thousand.
MAX_TOML_BYTES = 2**20

ConfigTable = dict[str, Any]
ConfigType = TypeVar("ConfigType")


@dataclasses.dataclass(frozen=True)
class NoConfig:
    """The Config of a component that has no options."""


def per_run(default: Any) -> Any:
    """Return a field of a strategy's Config that each request may set, with ``gen sample --FIELD TEXT``.

    Only `Strategy.make_tables` may read such a field: nothing else of the link may depend on it.
    """
    return dataclasses.field(default=default, metadata={"per_run": True})


def per_run_fields(cls: type[Any]) -> list[str]:
    """Return the names of the fields that `per_run` marks."""
    return [field.name for field in dataclasses.fields(cls) if field.metadata.get("per_run")]


def config_class(component: Any) -> type[Any]:
    """Return the ``Config`` dataclass of a component, or `NoConfig`."""
    return getattr(component, "Config", NoConfig)


def build_config(cls: type[ConfigType], table: Mapping[str, Any], section: str, *, strict: bool = True) -> ConfigType:
    """Turn a table into ``cls``, checking names, types and ranges.

    ``section`` is the table's name in messages, for example ``model``. With ``strict`` false, a number may be given as
    text.
    Raises ConfigError with the key, its value and what was expected.
    """
    keys = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in table:
        if key not in keys:
            options = ", ".join(keys) or "none"
            raise ConfigError(f"unknown key {section}.{key}.{nearest(key, keys)} Keys of [{section}]: {options}")
    for key, setting in table.items():
        if isinstance(setting, float) and not math.isfinite(setting):
            raise ConfigError(f"{section}.{key} = {setting}: expected a finite number")
        # msgspec compares with the next larger float instead. For 0 that is 5e-324, which itself counts as 0 as soon as
        # onnxruntime makes the processor flush tiny numbers to 0.
        for lower_bound in _exclusive_lower_bounds(cls, key):
            if isinstance(setting, int | float) and not isinstance(setting, bool) and not setting > lower_bound:
                raise ConfigError(f"{section}.{key} = {setting!r}: expected a number > {lower_bound}")
    try:
        with CONVERSION_LOCK:
            return msgspec.convert(dict(table), type=cls, strict=strict)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        key = re.split(r"[.\[`]", path.removeprefix("."))[0]
        setting = f"{section}.{key} = {table[key]!r}" if key in table else f"[{section}]"
        if problem.startswith("Invalid enum value"):
            *choices, last_choice = _choices(cls, key) or [problem]
            problem = f"expected {', '.join(choices)}{' or ' if choices else ''}{last_choice}"
        raise ConfigError(f"{setting}: {problem[:1].lower()}{problem[1:]}") from None


def _field_types(cls: type[Any], key: str) -> list[Any]:
    """Return the type of a field and, if it is a union such as ``Positive | None``, the members of the union."""
    annotation = typing.get_type_hints(cls, include_extras=True).get(key)
    return [annotation, *typing.get_args(annotation)]


def _exclusive_lower_bounds(cls: type[Any], key: str) -> list[float]:
    """Return the numbers that a field must be larger than."""
    bounds = []
    for field_type in _field_types(cls, key):
        for meta in getattr(field_type, "__metadata__", ()):
            if isinstance(meta, msgspec.Meta) and meta.gt is not None:
                bounds.append(meta.gt)
    return bounds


def _choices(cls: type[Any], key: str) -> list[str]:
    """Return the words that a field allows."""
    literals = [field_type for field_type in _field_types(cls, key) if typing.get_origin(field_type) is Literal]
    return [str(choice) for literal in literals for choice in typing.get_args(literal)]


def merge(*tables: Mapping[str, Any]) -> ConfigTable:
    """Merge nested tables; later ones win key by key."""
    merged: ConfigTable = {}
    for table in tables:
        for key, setting in table.items():
            if isinstance(setting, Mapping):
                previous = merged.get(key)
                merged[key] = merge(previous if isinstance(previous, Mapping) else {}, setting)
            else:
                merged[key] = setting
    return merged


def read_toml(path: Path) -> ConfigTable:
    """Read a TOML file, or raise ConfigError with the line that is wrong."""
    try:
        return _parse_toml(read_file(path, MAX_TOML_BYTES).decode("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; expected a TOML file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; expected a TOML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); expected a TOML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; expected a TOML file") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


class _TOMLSyntaxError(ValueError):
    """A text is no TOML."""


def _parse_toml(text: str) -> ConfigTable:
    """Return TOML as a table.

    Raises _TOMLSyntaxError where it is none, and ValueError where it is nested too deeply or has too long a number.
    """
    import tomllib  # takes 2 ms, which `gen sample` can do without

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _TOMLSyntaxError(str(error)) from None
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    check_data(table)
    return table


def parse_setting(text: str) -> ConfigTable:
    """Parse one ``--set section.key=value``; the value is TOML, or else a plain string."""
    path, has_equals, setting_text = text.partition("=")
    parts = path.strip().split(".")
    if not has_equals or len(parts) < 2 or not all(parts):
        raise ConfigError(f"setting {text}: expected section.key=value, for example model.hidden=256")
    if len(parts) > MAX_DEPTH:
        raise ConfigError(f"setting {text[:40]}...: {len(parts)} keys within each other; expected section.key=value")
    try:
        setting: Any = _parse_toml(f"value = {setting_text}")["value"]
    except _TOMLSyntaxError:
        setting = setting_text.strip()
    except ValueError as error:
        raise ConfigError(f"setting {text[:40]}...: {error}") from None
    table: ConfigTable = {parts[-1]: setting}
    for part in reversed(parts[:-1]):
        table = {part: table}
    return table


def to_table(config: Any) -> ConfigTable:
    """Turn a Config back into a plain table, leaving out what is None (TOML has no null)."""
    table = {key: setting for key, setting in dataclasses.asdict(config).items() if setting is not None}
    return {key: list(setting) if isinstance(setting, tuple) else setting for key, setting in table.items()}


def field_docs(cls: type[Any]) -> dict[str, str]:
    """Return the docstring written under each field of a Config dataclass, those of its base classes first."""
    docs: dict[str, str] = {}
    for declaring_class in reversed(cls.__mro__[:-1]):  # the last one is object
        docs |= _own_field_docs(declaring_class)
    return docs


def _own_field_docs(cls: type[Any]) -> dict[str, str]:
    """Return the docstrings of the fields that a class itself declares."""
    try:
        syntax_tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):  # there is no source, for example in a frozen program
        return {}
    docs: dict[str, str] = {}
    body = syntax_tree.body[0].body if isinstance(syntax_tree.body[0], ast.ClassDef) else []
    for statement, next_statement in itertools.pairwise(body):
        is_field = isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        is_docstring = isinstance(next_statement, ast.Expr) and isinstance(next_statement.value, ast.Constant)
        if is_field and is_docstring:
            name = statement.target.id  # type: ignore[attr-defined]
            docs[name] = inspect.cleandoc(str(next_statement.value.value))  # type: ignore[attr-defined]
    return docs
