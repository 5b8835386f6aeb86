"""What a session keeps of the request for its text, so that the next request may leave it out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

from gentext.requests.declaration import TextArguments, WritingOptions
from gentext.requests.fields import fields_of, message_types, pick_options
from gentext.requests.options import DEFAULTS


class SessionSettings(TextArguments, total=False):
    """The options of a text that a session keeps, by their declaration, and its prime.

    All settings but those that a request gives are complete: see `session_settings`.
    """

    parameters: Mapping[str, object]
    """Parameters of the links, as `gentext.requests.options.WritingOptions.parameters` has them."""
    prime: str
    """The prime that is the beginning of what matches, with ``match_prime``."""


#: The options that a request may give anew: those with a field that `Field.in_session` does not keep out.
SESSION_OPTIONS = tuple(name for name, field in fields_of(TextArguments).items() if field.in_session)
#: The options that make up settings, with their defaults. A session always has a seed.
SESSION_DEFAULTS = pick_options(DEFAULTS, [*SESSION_OPTIONS, "stream", "parameters"]) | {"seed": 0}

if TYPE_CHECKING:
    StoredSettings = SessionSettings
else:  # as msgspec reads them
    _TYPES = message_types(TextArguments) | {"seed": int, "parameters": dict[str, Any]}
    StoredSettings = TypedDict(
        "StoredSettings", {name: _TYPES[name] for name in SESSION_DEFAULTS} | {"prime": str}, total=False
    )


def session_settings(**given: Unpack[SessionSettings]) -> SessionSettings:
    """Return complete settings, with the defaults of the library for those that are not given, and the seed 0."""
    return cast(SessionSettings, SESSION_DEFAULTS | {"prime": ""} | given)


def settings_of(options: WritingOptions, prime: str) -> SessionSettings:
    """Return the settings of a text that is written with these options."""
    return cast(SessionSettings, pick_options(options, SESSION_DEFAULTS) | {"prime": prime})


def with_settings(options: WritingOptions, settings: SessionSettings) -> WritingOptions:
    """Return options with the settings of a session in place of their own."""
    return cast(WritingOptions, {**options, **pick_options(settings, SESSION_DEFAULTS)})


def merge_settings(settings: SessionSettings, changes: SessionSettings) -> SessionSettings:
    """Return the settings of a request that goes on with a session: those that it gives, and else the session's.

    Parameters of links count one by one; a style sets all anew. Where the request gives what the text must match, the
    session's stop strings do not count; else its ``match_prime`` is that of the session.
    """
    merged = settings.copy()
    if changes.get("style") is not None:
        merged["parameters"] = {}
    if changes.get("match") is not None or changes.get("json_schema") is not None:
        merged |= {"match": None, "json_schema": None, "match_prime": False, "prime": "", "stop": []}
    else:
        changes = changes | {"match_prime": merged["match_prime"], "prime": merged["prime"]}
    # The request's own stand last: a parameter may have two names, of which the later counts.
    parameters = dict(changes.get("parameters", {}))
    inherited = {name: setting for name, setting in merged["parameters"].items() if name not in parameters}
    return {**merged, **changes, "parameters": inherited | parameters}
