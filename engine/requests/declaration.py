"""What a request can ask for: every option with its type, default, range and help.

The keyword arguments of the library, the flags of commands, and the checks of ranges are made from the classes here:
see `gentext.arguments`, and `gentext.requests.declared_options`.
"""

# The annotations are read when a command starts, so they are not turned into texts.
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypedDict

from gentext.arguments import Option
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


class MatchArguments(TypedDict, total=False):
    """What requests to write and to search have in common. A new option of all of them is a line here."""

    match: Annotated[
        MatchOption,
        Option("the regular expression that each text matches, whole; or a list with one for each text, or None"),
    ]
    json_schema: Annotated[
        SchemaOption,
        Option("the JSON schema by which each text is valid, in place of ``match``: as a dict, or the path of a file"),
    ]
    match_prime: Annotated[
        bool, Option("whether the prime is the beginning of what matches; else the new text alone is", False)
    ]
    unknown: Annotated[
        str,
        Option(
            "what to do about characters of the prime that the model does not know: ``error``; ``skip`` leaves them "
            "out; ``unknown`` takes the model's unknown symbol",
            "error",
        ),
    ]


class WriterArguments(MatchArguments, total=False):
    """What all writers take, those of records too. A new option of all writers is a line here."""

    length: Annotated[
        int | None, Option("new characters of each text, at most; None: without end, or the default of records", 500, 1)
    ]
    seed: Annotated[
        int | None, Option("the same seed gives the same texts; None: a new one is drawn", None, 0, SEED_LIMIT - 1)
    ]
    style: Annotated[
        str | None,
        Option("``careful``, ``balanced`` or ``bold``: settings of the links, over which their parameters count"),
    ]
    chain: Annotated[
        Sequence[str] | None, Option("the names of the links of another sampling chain than the model's own")
    ]
    params: Annotated[Mapping[str, object] | None, Option("parameters of links, as ``{'LINK.PARAM': ...}``")]


class StopArguments(TypedDict, total=False):
    """What ends texts, which records do without."""

    stop: Annotated[
        Sequence[str],
        Option("each text ends before the first of these that it would contain; a text, or a list of them", ()),
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
        ),
    ]


class ScoredTextArguments(TextArguments, total=False):
    """What `TextModel.stream` takes besides parameters of links."""

    top_logprobs: Annotated[
        int,
        Option("how many of the most probable symbols the texts have for each of their tokens", 0, 0, MAX_TOP_LOGPROBS),
    ]
    echo: Annotated[
        bool, Option("whether the texts have the log-probabilities of their primes; ``length`` may then be 0", False)
    ]


class ManyTextsArguments(ScoredTextArguments, total=False):
    """What `TextModel.write_many` takes besides parameters of links."""

    count: Annotated[int, Option("how many texts to write of each prime", 1)]


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

    count: Annotated[int, Option("how many texts", 10, 1, MAX_TEXTS)]
    length: Annotated[
        int | None,
        Option(
            f"new characters of each text, at most; None: {DEFAULT_SEARCH_LENGTH}, or as many as the longest training "
            f"record has",
            None,
            1,
            MAX_SEARCH_LENGTH,
        ),
    ]
    temperature: Annotated[float, Option("by which the logits are divided", 1.0)]
    beam: Annotated[
        int | None,
        Option(
            "how many beginnings of each length are kept, which is not exact; None: all of them", None, 1, MAX_TEXTS
        ),
    ]
    memory: Annotated[int, Option("megabytes that the search may use", 1000, 1, MAX_MEGABYTES)]
