"""From the JSON of a request to jobs: names, types and limits. What depends on the model, the worker checks."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from gentext.errors import nearest
from gentext.noise import SEED_LIMIT
from gentext.plugins.server.problems import Problem
from gentext.plugins.server.settings import Limits
from gentext.plugins.server.tasks.messages import BestJob, ScoreJob, TextJob
from gentext.requests.declaration import MAX_TOP_LOGPROBS
from gentext.sessions.continuation import merge_settings
from gentext.sessions.session import SessionSettings, check_origin, unpack
from gentext.sessions.session_keys import SessionKeys

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
#: Fields that a request with a session may leave out.
SESSION_FIELDS = ("seed", "stop", "match", "json_schema", "match_prime", "unknown", "style")
#: Options of links that name a file are for the command line: a client must not read the server's files.
FILE_OPTION_END = "_file"

Fields = TypeVar("Fields", bound=msgspec.Struct)
Count = Annotated[int, msgspec.Meta(ge=1)]


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What an answer in events has besides the text."""

    include_usage: bool = False


class CompletionFields(msgspec.Struct):
    """The body of a request to ``/v1/completions``; all other names are parameters of the model's links."""

    model: str | None = None
    prompt: str | list[str] = ""
    n: Count = 1
    max_tokens: Annotated[int, msgspec.Meta(ge=0)] = 16
    stop: str | list[str] = ()  # type: ignore[assignment]
    seed: Annotated[int, msgspec.Meta(ge=0)] | None = None
    stream: bool = False
    stream_options: StreamOptions = msgspec.field(default_factory=StreamOptions)
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    echo: bool = False
    match: str | None = None
    json_schema: dict[str, Any] | None = None
    match_prime: bool = False
    unknown: str = "error"
    style: str | None = None
    session: str | None = None
    user: str | None = None


#: Looking the fields up takes longer than all else that is done with a request.
COMPLETION_NAMES = frozenset(field.name for field in msgspec.structs.fields(CompletionFields))


class ScoreFields(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request to ``/score``."""

    text: str
    model: str | None = None
    unknown: str = "error"


class BestFields(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request to ``/best``; the names are those of `gentext.TextModel.best`."""

    model: str | None = None
    prompt: str = ""
    count: Count = 10
    length: Count | None = None
    stop: str | list[str] = ()  # type: ignore[assignment]
    match: str | None = None
    json_schema: dict[str, Any] | None = None
    match_prime: bool = False
    temperature: float = 1.0
    unknown: str = "error"
    beam: Count | None = None


def read_fields(body: Mapping[str, Any], kind: type[Fields]) -> Fields:
    """Return the fields of a body; null stands for a field that is not given. Raises Problem for a wrong type."""
    given_fields = {name: setting for name, setting in body.items() if setting is not None}
    try:
        return msgspec.convert(given_fields, kind)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$.")
        parameter = place.rstrip("`").split("[")[0].split(".")[0] or None
        if parameter is not None:
            message = f"{parameter} = {_shorten(body.get(parameter))}: {message[:1].lower()}{message[1:]}"
        raise Problem(400, message, parameter=parameter) from None


class Completion:
    """A checked request for texts."""

    def __init__(
        self,
        fields: CompletionFields,
        settings: SessionSettings,
        session: bytes | None,
        limits: Limits,
    ) -> None:
        """``session`` is that to go on with, as `gentext.sessions.session` packs it; ``settings`` replace its own.

        Raises Problem for what is beyond the limits.
        """
        self.fields = fields
        self.prompts = [fields.prompt] if isinstance(fields.prompt, str) else fields.prompt
        self.seed = settings.seed
        self._settings, self._session = settings, session
        self._check(limits)

    def jobs(self) -> list[TextJob]:
        """Return a job for each text, in the order of the choices."""
        fields, settings = self.fields, self._settings
        return [
            TextJob(
                number=0,
                prompt=prompt,
                stream=settings.stream + number * fields.n + choice,
                seed=self.seed,
                length=fields.max_tokens,
                stop=settings.stop,
                parameters=settings.parameters,
                unknown=settings.unknown,
                style=settings.style,
                match=settings.match,
                json_schema=settings.json_schema,
                match_prime=settings.match_prime,
                top_logprobs=fields.logprobs,
                echo=fields.echo,
                session=self._session,
            )
            for number, prompt in enumerate(self.prompts)
            for choice in range(fields.n)
        ]

    def _check(self, limits: Limits) -> None:
        fields = self.fields
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
        check_size("n", len(self.prompts) * fields.n, limits.texts, "texts")
        check_size("max_tokens", fields.max_tokens, limits.length, "characters")
        if not fields.stream:
            characters = fields.max_tokens * len(self.prompts) * fields.n
            check_size("max_tokens", characters, limits.answer, "characters of all texts without stream = true")
        check_size("stop", len(read_texts(fields.stop)), MAX_STOPS, "texts")
        if fields.max_tokens == 0 and not fields.echo:
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
    settings = {name: setting for name, setting in body.items() if name not in COMPLETION_NAMES and setting is not None}
    parameters = _read_parameters(settings, links, COMPLETION_NAMES)
    changes = {name: getattr(fields, name) for name in SESSION_FIELDS if body.get(name) is not None} | {
        "parameters": parameters
    }
    if "stop" in changes:
        changes["stop"] = read_texts(fields.stop)
    if fields.session is None:
        new_seed: dict[str, Any] = {"seed": secrets.randbelow(DRAWN_SEEDS)}
        return Completion(fields, SessionSettings(**(new_seed | changes)), None, limits)
    packed = keys.open(fields.session)
    session = unpack(packed)
    if links["fingerprint"] is not None:
        check_origin(session, links["fingerprint"], links["runtime"])
    return Completion(fields, merge_settings(session.settings, changes), packed, limits)


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
            raise Problem(400, f"{name} = {_shorten(setting)}: expected a number", parameter=name)
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
                f"logit_bias: {token!r}: {_shorten(number)}; expected the numbers of symbols, 0 to {len(symbols) - 1}, "
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
    check_size("prompt", len(fields.prompt), limits.prompt, "characters")
    check_size("count", fields.count, limits.best_texts, "texts")
    check_size("beam", fields.beam or 0, limits.best_beam, "beginnings")
    check_size("stop", len(read_texts(fields.stop)), MAX_STOPS, "texts")
    options = msgspec.structs.asdict(fields) | {"stop": read_texts(fields.stop), "memory": limits.best_megabytes}
    del options["model"], options["prompt"]
    return fields.model, BestJob(0, fields.prompt, options, limits.request_seconds)


def read_texts(texts: str | list[str]) -> list[str]:
    """Return a text, or a list of them, as a list."""
    return [texts] if isinstance(texts, str) else list(texts)


def check_size(parameter: str, size: int, highest: int, unit: str) -> None:
    """Raise Problem where a size is beyond its limit."""
    if size > highest:
        raise Problem(400, f"{parameter}: {size:,} {unit}; at most {highest:,} are possible", parameter=parameter)


def _shorten(setting: object) -> str:
    text = repr(setting)
    return text if len(text) <= 60 else f"{text[:57]}..."
