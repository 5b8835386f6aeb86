"""Typed options: a frozen dataclass a component, filled from presets, TOML and the command line.

Who wins, from weakest to strongest: class default, preset, ``--config`` file, ``--set``, flag.
msgspec converts and checks; this file adds the merging and the wording of errors.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import math
import re
import textwrap
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from gentext.errors import ConfigError, nearest

#: Ready-made ranges for the fields of a Config: ``hidden: Positive = 512``.
Positive = Annotated[int, msgspec.Meta(ge=1)]
NonNegative = Annotated[int, msgspec.Meta(ge=0)]
PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]
NonNegativeFloat = Annotated[float, msgspec.Meta(ge=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, lt=1)]

ConfigTable = dict[str, Any]
C = TypeVar("C")


@dataclasses.dataclass(frozen=True)
class NoConfig:
    """The Config of a component that has no options."""


def per_run(default: Any) -> Any:
    """Give a field of a strategy's Config a default, and everybody who samples a say: ``--FIELD TEXT``.

    Only `Strategy.make_tables` may read such a field: it must not change what else the link is.
    """
    return dataclasses.field(default=default, metadata={"per_run": True})


def per_run_fields(cls: type[Any]) -> list[str]:
    """Return the names of the fields that `per_run` marks."""
    return [field.name for field in dataclasses.fields(cls) if field.metadata.get("per_run")]


def config_class(component: Any) -> type[Any]:
    """Return the ``Config`` dataclass of a component, or `NoConfig`."""
    return getattr(component, "Config", NoConfig)


def build_config(cls: type[C], values: Mapping[str, Any], where: str, *, strict: bool = True) -> C:
    """Turn a table into ``cls``, checking names, types and ranges.

    ``where`` is the table's name in messages, for example ``model``. Without ``strict``, numbers may
    come as text.
    Raises ConfigError naming the key, what was given and what was expected.
    """
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            options = ", ".join(known) or "none"
            raise ConfigError(f"unknown key {where}.{key}.{nearest(key, known)} Keys of [{where}]: {options}")
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{where}.{key} = {value}: expected a finite number")
        # msgspec asks for the next larger float instead: not zero, until onnxruntime takes tiny numbers for zero.
        for limit in _limits(cls, key):
            if isinstance(value, int | float) and not isinstance(value, bool) and not value > limit:
                raise ConfigError(f"{where}.{key} = {value!r}: expected a number > {limit}")
    try:
        return msgspec.convert(dict(values), type=cls, strict=strict)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        key = re.split(r"[.\[`]", path.removeprefix("."))[0]
        given = f"{where}.{key} = {values[key]!r}" if key in values else f"[{where}]"
        if problem.startswith("Invalid enum value"):
            *others, last = _choices(cls, key) or [problem]
            problem = f"expected {', '.join(others)}{' or ' if others else ''}{last}"
        raise ConfigError(f"{given}: {problem[:1].lower()}{problem[1:]}") from None


def _limits(cls: type[Any], key: str) -> list[float]:
    """Return what a field must be larger than."""
    kinds = [typing.get_type_hints(cls, include_extras=True).get(key)]
    kinds += typing.get_args(kinds[0])  # Annotated[...] | None
    metas = [one for kind in kinds for one in getattr(kind, "__metadata__", ()) if isinstance(one, msgspec.Meta)]
    return [one.gt for one in metas if one.gt is not None]


def _choices(cls: type[Any], key: str) -> list[str]:
    """Return the words that a field allows."""
    kinds = [typing.get_type_hints(cls).get(key)]
    kinds += typing.get_args(kinds[0])  # Literal[...] | None
    return [str(one) for kind in kinds if typing.get_origin(kind) is Literal for one in typing.get_args(kind)]


def merge(*tables: Mapping[str, Any]) -> ConfigTable:
    """Merge nested tables; later ones win key by key."""
    merged: ConfigTable = {}
    for table in tables:
        for key, value in table.items():
            if isinstance(value, Mapping):
                below = merged.get(key)
                merged[key] = merge(below if isinstance(below, Mapping) else {}, value)
            else:
                merged[key] = value
    return merged


def read_toml(path: Path) -> ConfigTable:
    """Read a TOML file, or raise ConfigError with the line that is wrong."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; expected a TOML file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; expected a TOML file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); expected a TOML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; expected a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def parse_setting(text: str) -> ConfigTable:
    """Parse one ``--set section.key=value``; the value is TOML, or else a plain string."""
    path, equals, raw = text.partition("=")
    parts = path.strip().split(".")
    if not equals or len(parts) < 2 or not all(parts):
        raise ConfigError(f"--set {text}: expected section.key=value, for example --set model.hidden=256")
    try:
        value: Any = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    table: ConfigTable = {parts[-1]: value}
    for part in reversed(parts[:-1]):
        table = {part: table}
    return table


def to_table(config: Any) -> ConfigTable:
    """Turn a Config back into a plain table, leaving out what is None (TOML has no null)."""
    return {key: value for key, value in dataclasses.asdict(config).items() if value is not None}


def field_docs(cls: type[Any]) -> dict[str, str]:
    """Return the docstring written under each field of a Config dataclass."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):  # no source at hand, for example in a frozen program
        return {}
    docs: dict[str, str] = {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    for field, doc in itertools.pairwise(body):
        documented = isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant)
        if documented and isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            docs[field.target.id] = inspect.cleandoc(str(doc.value.value))  # type: ignore[attr-defined]
    return docs
