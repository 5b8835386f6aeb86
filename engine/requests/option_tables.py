"""Tables of options for reference pages, made from their declaration: of the library, of commands, of the server."""

from __future__ import annotations

import json
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from gentext.arguments import NO_FLAG, declared, flag_names
from gentext.requests.fields import fields_of

#: Where requests come in: as keyword arguments, flags of a command, or fields of a request to the server.
Door = Literal["library", "flag", "field"]
#: How each of them names what a text goes on from.
PRIME_NAMES = {"library": "prime", "flag": "--prime", "field": "prompt"}
#: How each of them says what holds without a value.
NONE_WORDS = {"library": "None", "flag": "default", "field": "none"}
#: How tables name types. A class stands before those that it is derived from.
TYPE_WORDS = {bool: "true or false", int: "integer", float: "number", str: "text", os.PathLike: "path"}


class DoorOption(NamedTuple):
    """An option as a door has it."""

    name: str
    type: Any
    default: Any
    help: str
    least: int | None = None
    most: int | None = None


class OptionRow(NamedTuple):
    """What a table says of an option."""

    name: str
    type: str
    default: str
    range: str
    """``from 1``, ``0 to 10``, or nothing."""
    help: str


def door_options(kind: Any, door: Door) -> dict[str, DoorOption]:
    """Return the options of a class that a door has, by the names of the declaration."""
    if door == "field":
        return {name: DoorOption(*field[:-1]) for name, field in fields_of(kind).items()}
    options = {}
    for name, own in declared(kind).items():
        option, flag = own.option, own.flag
        if door == "library":
            options[name] = DoorOption(name, own.type, option.default, option.help, option.least, option.most)
        elif flag is not NO_FLAG:
            default = False if own.type is bool else option.default if flag.default is ... else flag.default
            options[name] = DoorOption(
                flag_names(name, own)[0],
                flag.type or own.type,
                default,
                flag.help or option.help,
                option.least if flag.least is None else flag.least,
                option.most,
            )
    return options


def option_rows(kind: Any, door: Door) -> dict[str, OptionRow]:
    """Return the rows of a reference table: the options of a class that a door has, by the names of the declaration."""
    options = door_options(kind, door)
    spelling = {"prime": PRIME_NAMES[door]} | {name: option.name for name, option in options.items()}
    rows = {}
    for name, option in options.items():
        _, declared_option, flag, _ = declared(kind)[name]
        text, allows_none = option.help, types.NoneType in typing.get_args(option.type)
        if declared_option.none and allows_none and not (door == "flag" and flag.help):
            text += f"; {NONE_WORDS[door]}: {declared_option.none}"
        rows[name] = OptionRow(
            option.name,
            describe_type(option.type),
            repr(option.default) if door == "library" else describe_json(option.default),
            describe_range(option.least, option.most),
            re.sub(r"``(\w+)``", lambda match: f"``{spelling.get(match[1], match[1])}``", text),
        )
    return rows


def describe_type(of_type: Any) -> str:
    """Return a type in words."""
    origin, arguments = typing.get_origin(of_type), typing.get_args(of_type)
    if origin in (typing.Union, types.UnionType):
        members = " or ".join(describe_type(member) for member in arguments if member is not types.NoneType)
        return " or ".join(dict.fromkeys(members.split(" or ")))
    if origin is tuple:
        return f"{len(arguments)} {describe_type(arguments[0])}s"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "object"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        lists = " or ".join(f"list of {word}s" for word in describe_type(arguments[0]).split(" or "))
        return f"text or {lists}" if "texts" in lists else lists
    if origin is Iterable:
        return f"iterable of {describe_type(arguments[0])}s"
    known_type = origin or of_type
    words = [word for each, word in TYPE_WORDS.items() if isinstance(known_type, type) and issubclass(known_type, each)]
    return words[0] if words else "function"


def describe_range(least: int | None, most: int | None) -> str:
    """Return a range of whole numbers in words."""
    return "" if least is None else f"from {least}" if most is None else f"{least} to {most}"


def describe_json(default: object) -> str:
    """Return the default of a field as JSON, or ``none``."""
    return "none" if default is None else json.dumps(default)


def markdown_table(rows: Iterable[OptionRow]) -> str:
    """Return a table of options for a page in Markdown."""
    lines = ["| name | type | default | range | meaning |", "|-|-|-|-|-|"]
    for row in rows:
        help_text = row.help.replace("``", "`").replace("|", r"\|")
        lines.append(f"| `{row.name}` | {row.type} | `{row.default}` | {row.range} | {help_text} |")
    return "\n".join(lines) + "\n"
