"""Tables of options for reference pages, made from their declaration: of the library, and of the server's fields."""

from __future__ import annotations

import json
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from gentext.arguments import declared
from gentext.requests.fields import fields_of

#: Where requests come in.
Door = Literal["library", "field"]
#: How tables name types. A class stands before those that it is derived from.
TYPE_WORDS = {bool: "true or false", int: "integer", float: "number", str: "text", os.PathLike: "path"}


class OptionRow(NamedTuple):
    """What a table says of an option."""

    name: str
    type: str
    default: str
    range: str
    """``from 1``, ``0 to 10``, or nothing."""
    help: str


def option_rows(kind: Any, door: Door) -> dict[str, OptionRow]:
    """Return the rows of the options of a class that a door has, by the names of the declaration."""
    fields = fields_of(kind)
    spelling = {} if door == "library" else {"prime": "prompt"} | {name: field.name for name, field in fields.items()}
    rows = {}
    for name, own in declared(kind).items():
        if door == "library":
            of_type, default, text, none = own.type, own.option.default, own.option.help, "None"
            least, most = own.option.least, own.option.most
        elif name in fields:
            of_type, default, text, none = fields[name].type, fields[name].default, fields[name].help, "none"
            least, most = fields[name].least, fields[name].most
        else:
            continue
        if own.option.none and types.NoneType in typing.get_args(of_type):
            text += f"; {none}: {own.option.none}"
        rows[name] = OptionRow(
            spelling.get(name, name),
            describe_type(of_type),
            repr(default) if door == "library" else describe_json(default),
            describe_range(least, most),
            re.sub(r"``(\w+)``", lambda match: f"``{spelling.get(match[1], match[1])}``", text),
        )
    return rows


def describe_type(of_type: Any) -> str:
    """Return a type in words."""
    origin, arguments = typing.get_origin(of_type), typing.get_args(of_type)
    if origin in (typing.Union, types.UnionType):
        words = [describe_type(member) for member in arguments if member is not types.NoneType]
        return " or ".join(dict.fromkeys(words))
    if origin is tuple:
        return f"{len(arguments)} {describe_type(arguments[0])}s"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "object"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        lists = " or ".join(f"list of {word}s" for word in describe_type(arguments[0]).split(" or "))
        return f"text or {lists}" if "texts" in lists else lists
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
