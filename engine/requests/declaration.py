"""What a request can ask for: every option with its type, default, range and help, each declared once.

The keyword arguments of the library, their defaults and the checks of their ranges are made from the classes here: see
`gentext.requests.doors`. A door is where requests come in: besides the library, the commands and the server. An option
that a door has otherwise than the library says so in its declaration.
"""

# The annotations are read when a command starts, so they are not turned into texts.
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict

from gentext.interfaces import Filter
from gentext.noise import SEED_LIMIT

#: Texts of one request at most: the library returns all of them in one list.
MAX_TEXTS = 100_000
#: Characters of a text that is searched for, at most: its beginnings form a chain that is followed for each text.
MAX_SEARCH_LENGTH = 100_000
#: The same where nobody says.
DEFAULT_SEARCH_LENGTH = 20
#: The largest number of megabytes that a search may have.
MAX_MEGABYTES = 10**6
#: Most probable symbols of a position, at most.
MAX_TOP_LOGPROBS = 10
#: A regular expression, or one for each text.
MatchOption = str | Sequence[str | None] | None
#: A JSON schema or the path of one, or one for each text.
SchemaOption = (
    Mapping[str, Any] | str | os.PathLike[str] | Sequence[Mapping[str, Any] | str | os.PathLike[str] | None] | None
)
#: Stands for the default that the library has.
SAME = object()


class Door(NamedTuple):
    """How a door has an option, as far as that differs from the library."""

    help: str = ""
    name: str = ""
    type: Any = None
    default: object = SAME
    least: int | None = None
    metavar: str | None = None


class Option(NamedTuple):
    """What the declaration of an option says besides its name and its type."""

    help: str
    """A sentence without its capital and its full stop; names of code stand in double backticks."""
    default: object = None
    least: int | None = None
    """The least whole number that it may be."""
    most: int | None = None
    sample: Door | None = Door()
    """Its flag of ``gen sample``; None: there is none. The next ones are alike."""
    best: Door | None = Door()
    """Its flag of ``gen best``."""
    completions: Door | None = Door()
    """Its field of a request to ``/v1/completions``."""
    best_request: Door | None = Door()
    """Its field of a request to ``/best``."""
    records: Door | None = Door()
    """Its argument of `TextModel.records`."""


class MatchArguments(TypedDict, total=False):
    """What requests to write and to search have in common. A new option of all of them is a line here."""

    match: Annotated[
        MatchOption,
        Option(
            "the regular expression that each text matches, whole; or a list with one for each text, or None",
            sample=Door("A regular expression that each new text matches, whole.", type=str | None, metavar="REGEX"),
            best=Door("A regular expression that each text matches, whole.", type=str | None, metavar="REGEX"),
            completions=Door(
                "a regular expression, as in Python, that the new text matches, whole. Needs the link ``match`` in the "
                "file",
                type=str | None,
            ),
            best_request=Door("as above; the link is not needed", type=str | None),
        ),
    ]
    json_schema: Annotated[
        SchemaOption,
        Option(
            "the JSON schema by which each text is valid, in place of ``match``: as a dict, or the path of a file",
            sample=Door("A JSON schema by which each new text is valid.", type=Path | None, metavar="FILE"),
            best=Door("A JSON schema by which each text is valid.", type=Path | None, metavar="FILE"),
            completions=Door(
                "a JSON schema by which the new text is valid, in place of ``match``", type=dict[str, Any] | None
            ),
            best_request=Door("as above", type=dict[str, Any] | None),
        ),
    ]
    match_prime: Annotated[
        bool,
        Option(
            "whether the prime is the beginning of what matches; else the new text alone is",
            False,
            sample=Door("The prime counts as the beginning of it."),
            best=Door("The prime counts as the beginning of it."),
            completions=Door("whether the prompt is the beginning of what matches"),
            best_request=Door("as above"),
        ),
    ]
    unknown: Annotated[
        str,
        Option(
            "what to do about characters of the prime that the model does not know: ``error``; ``skip`` leaves them "
            "out; ``unknown`` takes the model's unknown symbol",
            "error",
            sample=Door("Characters of the prime that are unknown: error, skip or unknown."),
            best=Door("Characters of the prime that are unknown: error, skip or unknown."),
            completions=Door(
                "what to do about characters of the prompt that the model does not know: ``error``, ``skip`` them, or "
                "read them as ``unknown``"
            ),
            best_request=Door("as above"),
        ),
    ]


class WriterArguments(MatchArguments, total=False):
    """What all writers take, those of records too. A new option of all writers is a line here."""

    length: Annotated[
        int | None,
        Option(
            "new characters of each text, at most; None: without end, or the default of records",
            500,
            1,
            sample=Door(
                "New characters; 0: without end. Default: 500; of records at most, twice those of the longest one.",
                default=None,
            ),
            completions=Door(
                "new characters of each choice at most. 0 is possible with ``echo`` alone",
                name="max_tokens",
                type=int,
                default=16,
                least=0,
            ),
            records=Door("characters behind the prefix, at most; None: twice the longest record", default=None),
        ),
    ]
    seed: Annotated[
        int | None,
        Option(
            "the same seed gives the same texts; None: a new one is drawn",
            None,
            0,
            SEED_LIMIT - 1,
            sample=Door("The same seed gives the same text. Default: a fresh one."),
            completions=Door(
                "the same seed gives the same texts; without one a seed is drawn. The answer has the seed that was "
                "used. Choice k is stream k of the seed: ``gen sample --seed`` writes the same"
            ),
        ),
    ]
    style: Annotated[
        str | None,
        Option(
            "``careful``, ``balanced`` or ``bold``: settings of the links, over which their parameters count",
            sample=Door("careful, balanced or bold; parameters beside it count. Default: the file's."),
            completions=Door(
                "``careful``, ``balanced`` or ``bold``: settings of the links, over which those of the request count"
            ),
        ),
    ]
    chain: Annotated[
        Sequence[str] | None,
        Option(
            "the names of the links of another sampling chain than the model's own",
            sample=Door("Links in order, with commas. Default: the file's.", type=str | None),
            completions=None,
        ),
    ]
    params: Annotated[
        Mapping[str, object] | None,
        Option("parameters of links, as ``{'LINK.PARAM': ...}``", sample=None, completions=None),
    ]


class StopArguments(TypedDict, total=False):
    """What ends texts, which records do without."""

    stop: Annotated[
        Sequence[str],
        Option(
            "each text ends before the first of these that it would contain; a text, or a list of them",
            (),
            sample=Door(
                "Stop before this text, such as '\\n\\n'; may be repeated.", type=list[str] | None, default=None
            ),
            best=Door(
                "Texts end before this text, such as '\\n'; may be repeated.", type=list[str] | None, default=None
            ),
            completions=Door(
                "a text ends before the first of these, which is not part of it; 64 at most", type=str | list[str]
            ),
            best_request=Door("a text ends before the first of these", type=str | list[str]),
        ),
    ]


class TextArguments(WriterArguments, StopArguments, total=False):
    """What `TextModel.write` takes besides parameters of links."""

    stream: Annotated[
        int,
        Option(
            "the stream of the seed that the first text is written with; the next ones have the next streams",
            0,
            0,
            SEED_LIMIT - 1,
            sample=None,
            completions=None,
        ),
    ]


class ScoredTextArguments(TextArguments, total=False):
    """What `TextModel.stream` takes besides parameters of links."""

    top_logprobs: Annotated[
        int,
        Option(
            "how many of the most probable symbols the texts have for each of their tokens",
            0,
            0,
            MAX_TOP_LOGPROBS,
            sample=None,
            completions=Door(
                "log-probabilities of the symbols, with so many of the most probable ones in each place. They are the "
                "model's, before temperature and other links",
                name="logprobs",
                type=int | None,
                default=None,
            ),
        ),
    ]
    echo: Annotated[
        bool,
        Option(
            "whether the texts have the log-probabilities of their primes; ``length`` may then be 0",
            False,
            sample=None,
            completions=Door(
                "whether a choice begins with its prompt; with ``logprobs`` its symbols have log-probabilities too. "
                "That of the first symbol is null"
            ),
        ),
    ]


class ManyTextsArguments(ScoredTextArguments, total=False):
    """What `TextModel.write_many` takes besides parameters of links."""

    count: Annotated[
        int,
        Option(
            "how many texts to write of each prime",
            1,
            sample=Door("How many texts to write, all from one seed; of records, any number."),
            completions=Door(
                "choices of each prompt. Choice i of prompt j has the index j n + i", name="n", type=int, least=1
            ),
        ),
    ]


class WritingOptions(ManyTextsArguments, total=False):
    """The options of a request, besides the primes. `gentext.requests.options.writing_options` returns complete ones.

    Text i of prime j is written with stream ``stream + count * j + i`` of the seed.
    """

    parameters: Annotated[
        Mapping[str, object],
        Option("all that sets parameters of links: see `gentext.requests.parameters.choose_chain`", {}),
    ]
    continues: Annotated[
        bool, Option("whether the texts go on behind others, which a record that may end at once does", False)
    ]


class RecordArguments(WriterArguments, total=False):
    """What `TextModel.records` takes besides the number of records and parameters of links."""

    prefix: Annotated[str, Option("what each record begins with", "")]
    prefixes: Annotated[Sequence[str] | None, Option("beginnings, with as many records of each, in place of it")]
    fields: Annotated[Mapping[str, str] | None, Option("leading columns of rows of a table, in place of it")]
    unique: Annotated[bool, Option("whether of equal records only the first stays", False)]
    novel: Annotated[
        bool | str | os.PathLike[str],
        Option("whether none is among the training records; or the run, or the file of hashes, that none is of", False),
    ]
    accept: Annotated[str | None, Option("a regular expression that all of a record matches")]
    filters: Annotated[
        Sequence[str | Filter], Option("names of filters, or functions that return which of some texts may stay", ())
    ]
    filter_options: Annotated[
        Mapping[str, Mapping[str, object]] | None, Option("the options of named filters, by their names")
    ]
    max_tries: Annotated[int, Option("how many records to draw for each number, at most", 1000)]
    shard: Annotated[tuple[int, int], Option("``(i, n)``: only the numbers that are i modulo n are written", (0, 1))]
    ordered: Annotated[bool, Option("whether records come in order, else each as soon as it ends", True)]
    slots: Annotated[int | None, Option("records side by side; None: as many as are fast")]


class SearchArguments(MatchArguments, StopArguments, total=False):
    """What a search for the most probable texts can ask for, besides the prime."""

    count: Annotated[
        int, Option("how many texts", 10, 1, MAX_TEXTS, best=Door("How many texts."), best_request=Door(type=int))
    ]
    length: Annotated[
        int | None,
        Option(
            f"new characters of each text, at most; None: {DEFAULT_SEARCH_LENGTH}, or as many as the longest training "
            f"record has",
            None,
            1,
            MAX_SEARCH_LENGTH,
            best=Door(
                f"New characters of each text, at most. Default: {DEFAULT_SEARCH_LENGTH}; of records, the longest."
            ),
            best_request=Door(
                f"characters of each at most; none: {DEFAULT_SEARCH_LENGTH}, of a model of records those of the "
                f"longest training record"
            ),
        ),
    ]
    temperature: Annotated[
        float,
        Option(
            "by which the logits are divided",
            1.0,
            best=Door("1: the model's own probabilities."),
            best_request=Door("logits are divided by it"),
        ),
    ]
    beam: Annotated[
        int | None,
        Option(
            "how many beginnings of each length are kept, which is not exact; None: all of them",
            None,
            1,
            MAX_TEXTS,
            best=Door("Keep so many beginnings of each length: quick, but not exact."),
            best_request=Door("keep so many beginnings of each length: quick, but not exact"),
        ),
    ]
    memory: Annotated[
        int,
        Option(
            "megabytes that the search may use",
            1000,
            1,
            MAX_MEGABYTES,
            best=Door("Megabytes that the search may use."),
            best_request=None,
        ),
    ]
