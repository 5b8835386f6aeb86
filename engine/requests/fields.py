"""How requests to the server have the options that `gentext.requests.declaration` declares, and how messages do."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from gentext.arguments import declared


class Field(NamedTuple):
    """Where the field of a request to the server differs from the argument of the library."""

    name: str = ""
    type: Any = None
    """The type that JSON has. For a list of texts one text may stand."""
    default: object = ...
    help: str = ""
    least: int | None = None
    most: int | None = None
    """Only this bound is part of the field's type; that of `Option.most` is checked together with other options."""
    in_session: bool = True
    """Whether a request that goes on with a session has it from there."""


#: Stands beside an option that requests to the server do not have.
NO_FIELD = Field(name="-")


@functools.cache
def fields_of(kind: Any) -> dict[str, Field]:
    """Return the complete fields of the options that requests to the server have, by the names of the declaration."""
    fields = {}
    for name, (own_type, option, *_) in declared(kind).items():
        field = _field_of(kind, name)
        if field is not NO_FIELD:
            fields[name] = Field(
                field.name or name,
                field.type or own_type,
                option.default if field.default is ... else field.default,
                field.help or option.help,
                option.least if field.least is None else field.least,
                field.most,
                field.in_session,
            )
    return fields


def message_types(kind: Any) -> dict[str, Any]:
    """Return the type of each option in messages: that of fields, as the library's may have no counterpart in JSON."""
    return {name: _field_of(kind, name).type or own.type for name, own in declared(kind).items()}


def pick_options(options: Mapping[str, object], names: Iterable[str]) -> dict[str, Any]:
    """Return the options of these names alone."""
    return {name: options[name] for name in names}


def _field_of(kind: Any, name: str) -> Field:
    return next((door for door in declared(kind)[name].doors if isinstance(door, Field)), Field())
