"""From the JSON of a request to jobs: names, types and limits. What depends on the model, the worker checks."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, cast

from gentext.arguments import with_defaults
from gentext.errors import nearest
from gentext.noise import SEED_LIMIT
from gentext.plugins.server.http.fields import (
    COMPLETION_NAMES,
    BestFields,
    CompletionBody,
    CompletionFields,
    OptionsReader,
    ScoreFields,
    read_fields,
    shorten,
)
from gentext.plugins.server.problems import Problem
from gentext.plugins.server.settings import Limits
from gentext.plugins.server.tasks.messages import BestJob, ScoreJob, TextJob
from gentext.requests.declaration import ManyTextsArguments, SearchArguments, WritingOptions
from gentext.requests.fields import fields_of, pick_options
from gentext.requests.options import DEFAULTS
from gentext.sessions.session import check_origin, unpack
from gentext.sessions.session_keys import SessionKeys
from gentext.sessions.session_settings import (
    SESSION_OPTIONS,
    SessionSettings,
    merge_settings,
    with_settings,
)

#: Parameters of OpenAI's API that change nothing at this value. They are accepted there, whatever links the file has.
NEUTRAL_SETTINGS: Mapping[str, tuple[object, ...]] = {
    "best_of": (1,),
    "suffix": ("",),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({}, ""),
    "temperature": (1,),
    "top_p": (1,),
}
#: Stop strings of a text, at most.
MAX_STOPS = 64
#: A request without a seed gets one below this: numbers that every JSON reader keeps exactly.
DRAWN_SEEDS = 2**32
#: The fields of the options of texts, and what reads them.
REQUEST_FIELDS = fields_of(ManyTextsArguments)
TEXT_OPTIONS = OptionsReader(ManyTextsArguments, DEFAULTS)
#: The same of a search.
SEARCH_OPTIONS = OptionsReader(SearchArguments, with_defaults(SearchArguments(), SearchArguments))
#: Options of links that name a file are for the command line: a client must not read the server's files.
FILE_OPTION_END = "_file"


class Completion:
    """A checked request for texts."""

    def __init__(
        self,
        fields: CompletionBody,
        options: WritingOptions,
        session: bytes | None,
        limits: Limits,
        *,
        has_logprobs: bool,
    ) -> None:
        """``session`` is that to go on with, as `gentext.sessions.session` packs it.

        Raises Problem for what is beyond the limits.
        """
        assert options["seed"] is not None
        self.fields, self.seed, self.has_logprobs = fields, options["seed"], has_logprobs
        self.prompts = [fields.prompt] if isinstance(fields.prompt, str) else fields.prompt
        self._options, self._session = options, session
        self._check(limits)

    def jobs(self) -> list[TextJob]:
        """Return a job for each text, in the order of the choices."""
        options = self._options
        prompts = [prompt for prompt in self.prompts for _ in range(options["count"])]
        return [
            TextJob(0, prompt, options | {"count": 1, "stream": stream}, self.has_logprobs, self._session)
            for stream, prompt in enumerate(prompts, options["stream"])
        ]

    def _check(self, limits: Limits) -> None:
        choices, length = self._options["count"], self._options["length"]
        assert length is not None
        if not self.prompts:
            raise Problem(400, "prompt = []: expected a text, or a list with at least one", parameter="prompt")
        if self._session is not None and len(self.prompts) > 1:
            raise Problem(
                400,
                f"prompt has {len(self.prompts)} texts; expected one with a session, which it is appended to",
                parameter="prompt",
            )
        for prompt in self.prompts:
            check_size("prompt", len(prompt), limits.prompt, "characters")
        check_size("n", len(self.prompts) * choices, limits.texts, "texts")
        check_size("max_tokens", length, limits.length, "characters")
        if not self.fields.stream:
            characters = length * len(self.prompts) * choices
            check_size("max_tokens", characters, limits.answer, "characters of all texts without stream = true")
        check_size("stop", len(self._options["stop"]), MAX_STOPS, "texts")
        if length == 0 and not self._options["echo"]:
            raise Problem(
                400, "max_tokens = 0: expected at least 1, or echo, which returns the prompt", parameter="max_tokens"
            )
        if self.seed >= SEED_LIMIT:
            raise Problem(400, f"seed = {self.seed}: expected 0 to {SEED_LIMIT - 1}", parameter="seed")


def read_completion(body: Mapping[str, Any], links: Mapping[str, Any], limits: Limits, keys: SessionKeys) -> Completion:
    """Return a request for texts. Raises Problem for a name, a type or a number that cannot be.

    A request with a session has its settings where it gives none itself. Raises SessionError for a session that is
    none, or belongs to another file.

    :param links: the model as `gentext.plugins.server.worker.answers.describe_model` describes it.
    """
    fields = read_fields(
        {name: setting for name, setting in body.items() if name in COMPLETION_NAMES}, CompletionFields
    )
    others = {name: setting for name, setting in body.items() if name not in COMPLETION_NAMES and setting is not None}
    parameters = _read_parameters(others, links, COMPLETION_NAMES)
    options = TEXT_OPTIONS.read(fields)
    options["parameters"] = parameters
    packed = None
    if fields.session is not None:
        packed = keys.open(fields.session)
        session = unpack(packed)
        if links["fingerprint"] is not None:
            check_origin(session, links["fingerprint"], links["runtime"])
        given = [name for name in SESSION_OPTIONS if body.get(REQUEST_FIELDS[name].name) is not None]
        changes = cast(SessionSettings, pick_options(options, [*given, "parameters"]))
        options = with_settings(options, merge_settings(session.settings, changes))
    elif options["seed"] is None:
        options["seed"] = secrets.randbelow(DRAWN_SEEDS)
    has_logprobs = body.get(REQUEST_FIELDS["top_logprobs"].name) is not None
    return Completion(fields, options, packed, limits, has_logprobs=has_logprobs)


def _read_parameters(settings: Mapping[str, Any], links: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Return the parameters of links. Raises Problem for a name that is none, or one that a client may not set."""
    parameter_names = _parameter_names(links)
    parameters = {}
    for name, setting in settings.items():
        if name == "best_of" or name == "suffix" or name not in parameter_names:
            if any(setting == neutral for neutral in NEUTRAL_SETTINGS.get(name, ())):
                continue
            raise _refusal(name, parameter_names, names)
        parameters[name] = _read_biases(setting, links["symbols"]) if name == "logit_bias" else setting
        if not isinstance(parameters[name], int | float | str) or isinstance(setting, bool):
            raise Problem(400, f"{name} = {shorten(setting)}: expected a number", parameter=name)
    return parameters


def _refusal(name: str, parameter_names: set[str], names: frozenset[str]) -> Problem:
    if name in NEUTRAL_SETTINGS:
        neutral = NEUTRAL_SETTINGS[name][0]
        reason = (
            "this server does not support it" if name in ("best_of", "suffix") else "the model's file lacks its link"
        )
        return Problem(400, f"{name}: {reason}; leave it out, or set it to {neutral!r}", parameter=name)
    return Problem(400, f"no parameter {name!r}.{nearest(name, {*parameter_names, *names})} See /docs", parameter=name)


def _parameter_names(links: Mapping[str, Any]) -> set[str]:
    """Return the names by which the parameters of a model's links can be set."""
    names = set()
    for link, parameters in [*links["chain"].items(), *links["options"].items()]:
        for name in parameters:
            if not name.endswith(FILE_OPTION_END):
                names |= {name, f"{link}_{name}", f"{link}.{name}"}
    return names


def _read_biases(setting: object, symbols: list[str]) -> object:
    """Return the object of OpenAI's ``logit_bias``, tokens with numbers, as the link `bias` has it: as text."""
    if not isinstance(setting, dict):
        return setting
    pairs = []
    for token, number in setting.items():
        if not token.isdecimal() or int(token) >= len(symbols) or not isinstance(number, int | float):
            raise Problem(
                400,
                f"logit_bias: {token!r}: {shorten(number)}; expected the numbers of symbols, 0 to {len(symbols) - 1}, "
                f"each with what is added to its logit",
                parameter="logit_bias",
            )
        symbol = symbols[int(token)].encode("unicode_escape").decode()
        pairs.append(f"{symbol}:{number!r}")
    return ",".join(pairs)


def read_score(body: Mapping[str, Any], limits: Limits) -> tuple[str | None, ScoreJob]:
    """Return the name of the model, and the job."""
    fields = read_fields(body, ScoreFields)
    check_size("text", len(fields.text), limits.prompt, "characters")
    return fields.model, ScoreJob(0, fields.text, fields.unknown)


def read_best(body: Mapping[str, Any], limits: Limits) -> tuple[str | None, BestJob]:
    """Return the name of the model, and the job."""
    fields = read_fields(body, BestFields)
    options = SEARCH_OPTIONS.read(fields)
    check_size("prompt", len(fields.prompt), limits.prompt, "characters")
    check_size("count", options["count"], limits.best_texts, "texts")
    check_size("beam", options["beam"] or 0, limits.best_beam, "beginnings")
    check_size("stop", len(options["stop"]), MAX_STOPS, "texts")
    options["memory"] = limits.best_megabytes
    return fields.model, BestJob(0, fields.prompt, options, limits.request_seconds)


def check_size(parameter: str, size: int, highest: int, unit: str) -> None:
    """Raise Problem where a size is beyond its limit."""
    if size > highest:
        raise Problem(400, f"{parameter}: {size:,} {unit}; at most {highest:,} are possible", parameter=parameter)
