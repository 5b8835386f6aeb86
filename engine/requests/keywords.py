"""The keyword arguments of the methods that write: options, and parameters of the built-in links.

`options_of_arguments` makes the options of a request of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, cast

from gentext.arguments import declared
from gentext.errors import UsageError
from gentext.requests.declaration import (
    ManyTextsArguments,
    RecordArguments,
    ScoredTextArguments,
    TextArguments,
    WritingOptions,
)
from gentext.requests.options import DEFAULTS


class LinkArguments(TypedDict, total=False):
    """Parameters of the built-in links. Those of other links are set with ``params``."""

    logit_bias: str
    logit_bias_file: str
    ban: str
    ban_file: str
    repeat_penalty: float
    frequency_penalty: float
    presence_penalty: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_sequence_breakers: str
    no_repeat_ngram_size: int
    top_n_sigma: float
    top_k: int
    typical_p: float
    top_p: float
    min_p: float
    top_h: float
    p_less: int
    epsilon_cutoff: float
    eta_cutoff: float
    xtc_probability: float
    xtc_threshold: float
    temperature: float
    dynatemp_range: float
    dynatemp_exponent: float
    schedule: str
    mirostat: int
    mirostat_tau: float
    mirostat_eta: float
    adaptive_target: float
    adaptive_decay: float


class WriteKeywords(TextArguments, LinkArguments, total=False):
    """The keyword arguments of `TextModel.write`."""


class StreamKeywords(ScoredTextArguments, LinkArguments, total=False):
    """The keyword arguments of `TextModel.stream`."""


class ManyTextsKeywords(ManyTextsArguments, LinkArguments, total=False):
    """The keyword arguments of `TextModel.write_many`."""


class RecordKeywords(RecordArguments, LinkArguments, total=False):
    """The keyword arguments of `TextModel.records`."""


def options_of_arguments(arguments: Mapping[str, object], kind: Any) -> WritingOptions:
    """Return the keyword arguments of a method as options; those that ``kind`` does not declare set links."""
    names = declared(kind)
    given = {name: argument for name, argument in arguments.items() if name in names}
    settings = {name: argument for name, argument in arguments.items() if name not in names}
    options = cast(WritingOptions, {name: given.get(name, default) for name, default in DEFAULTS.items()})
    chain, params = options["chain"], options["params"]
    if not isinstance(params, Mapping | None):
        raise UsageError(f"params = {params!r}: expected a dict such as {{'top_k.top_k': 5}}")
    if isinstance(chain, str):
        raise UsageError(f"chain = {chain!r}: expected a list of links")
    return options | {
        "chain": None if chain is None else list(chain),
        "parameters": {**(params or {}), **settings},
        "stop": stop_strings(options["stop"]),
        "match_prime": bool(options["match_prime"]),
        "echo": bool(options["echo"]),
    }


def stop_strings(stop: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(stop, Iterable):
        raise UsageError(f"stop = {stop!r}: expected a text, or a list of texts")
    return (stop,) if isinstance(stop, str) else tuple(stop)


def check_names(arguments: Mapping[str, object], kind: Any, method: str) -> None:
    """Raise TypeError for an argument that a method does not have, as Python does."""
    for name in arguments.keys() - declared(kind).keys():
        raise TypeError(f"{method}() got an unexpected keyword argument {name!r}")
