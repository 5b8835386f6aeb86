"""The fields of requests: those of the server's own, and the options of the declaration. Checks names and types."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Annotated, Any, Generic, TypeVar, cast, get_args

import msgspec

from gentext.plugins.server.problems import Problem
from gentext.requests.declaration import ManyTextsArguments, SearchArguments
from gentext.requests.fields import Field, fields_of

Fields = TypeVar("Fields", bound=msgspec.Struct)
Options = TypeVar("Options")


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What an answer in events has besides the text."""

    include_usage: bool = False


class CompletionBody(msgspec.Struct):
    """The body of a request to ``/v1/completions``, but for options; all other names are parameters of links."""

    model: str | None = None
    prompt: str | list[str] = ""
    stream: bool = False
    stream_options: StreamOptions = msgspec.field(default_factory=StreamOptions)
    session: str | None = None
    user: str | None = None


class ScoreFields(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request to ``/score``."""

    text: str
    model: str | None = None
    unknown: str = "error"


class BestBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request to ``/best``, but for options."""

    model: str | None = None
    prompt: str = ""


def add_options(body: type[Fields], kind: Any) -> type[Fields]:
    """Return the fields of a body, with those of the options that a class of the declaration has."""
    options = [(field.name, _type_of(field), field.default) for field in fields_of(kind).values()]
    is_closed = body.__struct_config__.forbid_unknown_fields
    fields = msgspec.defstruct(body.__name__, options, bases=(body,), module=__name__, forbid_unknown_fields=is_closed)
    return cast(type[Fields], fields)


def _type_of(field: Field) -> Any:
    """Return the type of a field in JSON, with its range."""
    if field.type == list[str]:
        return str | list[str]
    if field.least is None:
        return field.type
    number = Annotated[int, msgspec.Meta(ge=field.least, le=field.most)]
    return number | None if type(None) in get_args(field.type) else number


CompletionFields = add_options(CompletionBody, ManyTextsArguments)
#: Looking the fields up takes longer than all else that is done with a request.
COMPLETION_NAMES = frozenset(field.name for field in msgspec.structs.fields(CompletionFields))
BestFields = add_options(BestBody, SearchArguments)


def read_fields(body: Mapping[str, Any], kind: type[Fields]) -> Fields:
    """Return the fields of a body; null stands for a field that is not given. Raises Problem for a wrong type."""
    given_fields = {name: setting for name, setting in body.items() if setting is not None}
    try:
        return msgspec.convert(given_fields, kind)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$.")
        parameter = place.rstrip("`").split("[")[0].split(".")[0] or None
        if parameter is not None:
            message = f"{parameter} = {shorten(body.get(parameter))}: {message[:1].lower()}{message[1:]}"
        raise Problem(400, message, parameter=parameter) from None


class OptionsReader(Generic[Options]):
    """Reads the options in the fields of a body, by the names of the declaration."""

    def __init__(self, kind: Any, defaults: Options) -> None:
        """``defaults`` are complete options; they hold where a field has none."""
        fields = fields_of(kind)
        self._names, self._defaults = [*fields], defaults
        self._lists = [name for name, field in fields.items() if field.type == list[str]]
        self._get_all = operator.attrgetter(*(field.name for field in fields.values()))

    def read(self, fields: msgspec.Struct) -> Options:
        """Return complete options."""
        options: dict[str, Any] = {**cast(Any, self._defaults)}
        for name, setting in zip(self._names, self._get_all(fields), strict=True):
            if setting is not None:
                options[name] = setting
        for name in self._lists:
            options[name] = read_texts(options[name])
        return cast(Options, options)


def read_texts(texts: str | list[str]) -> list[str]:
    """Return a text, or a list of them, as a list."""
    return [texts] if isinstance(texts, str) else list(texts)


def shorten(setting: object) -> str:
    """Return a setting as messages show it."""
    text = repr(setting)
    return text if len(text) <= 60 else f"{text[:57]}..."
