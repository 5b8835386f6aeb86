"""The arguments of `TextModel.write` and its siblings, as the options of a request."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gentext.errors import UsageError
from gentext.requests.options import WritingOptions

#: A regular expression, or one for each text.
MatchOption = str | Sequence[str | None] | None
#: A JSON schema or the path of one, or one for each text.
SchemaOption = (
    Mapping[str, Any] | str | os.PathLike[str] | Sequence[Mapping[str, Any] | str | os.PathLike[str] | None] | None
)


def writing_options(
    count: int,
    length: int | None,
    seed: int | None,
    stream: int,
    stop: str | Sequence[str],
    unknown: str,
    style: str | None,
    chain: Sequence[str] | None,
    params: Mapping[str, object] | None,
    parameters: Mapping[str, object],
    match: object,
    json_schema: object,
    match_prime: bool,
    top_logprobs: int = 0,
    echo: bool = False,
) -> WritingOptions:
    """Return the arguments of `TextModel.write` as options; ``params`` and ``parameters`` both set those of links."""
    if not isinstance(params, Mapping | None):
        raise UsageError(f"params = {params!r}: expected a dict such as {{'top_k.top_k': 5}}")
    if isinstance(chain, str):
        raise UsageError(f"chain = {chain!r}: expected a list of links")
    links = None if chain is None else list(chain)
    settings, stops = {**(params or {}), **parameters}, stop_strings(stop)
    return WritingOptions(
        count,
        length,
        seed,
        stream,
        stops,
        unknown,
        links,
        settings,
        style,
        match,
        json_schema,
        bool(match_prime),
        top_logprobs,
        bool(echo),
    )


def stop_strings(stop: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(stop, Iterable):
        raise UsageError(f"stop = {stop!r}: expected a text, or a list of texts")
    return (stop,) if isinstance(stop, str) else tuple(stop)
