"""What a request can ask for: every option with its type, default, range and help, declared once.

The keyword arguments of the library, the flags of commands, the fields of the server's requests and the checks of
ranges are made from the classes here: see `gentext.arguments`, `gentext.requests.fields` and
`gentext.requests.declared_options`. A `Flag` or `Field` beside an option says where that door differs from the library.
"""

# The annotations are read when a command starts, so they are not turned into texts.
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypedDict

from gentext.arguments import NO_FLAG, Flag, Option, split_names
from gentext.files.escapes import decode_escapes
from gentext.interfaces import Filter
from gentext.noise import SEED_LIMIT
from gentext.requests.fields import NO_FIELD, Field

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
        Option("a regular expression, as in Python, that each whole new text matches"),
        Flag(type=str | None, metavar="REGEX"),
        Field(type=str | None),
    ]
    json_schema: Annotated[
        SchemaOption,
        Option("a JSON schema that each new text fits, in place of ``match``"),
        Flag(type=Path | None, metavar="FILE"),
        Field(type=dict[str, Any] | None),
    ]
    match_prime: Annotated[
        bool, Option("match the ``prime`` together with the new text, not the new text alone", False)
    ]
    unknown: Annotated[
        str,
        Option(
            "what to do about characters of the ``prime`` that the model does not know: error, skip (leave them out) "
            "or unknown (read them as its unknown symbol)",
            "error",
        ),
    ]


class WriterArguments(MatchArguments, total=False):
    """What all writers take, those of records too. A new option of all writers is a line here."""

    seed: Annotated[
        int | None, Option("the same seed gives the same texts", None, 0, SEED_LIMIT - 1, none="a new seed")
    ]
    style: Annotated[
        str | None,
        Option(
            "settings of the links: careful, balanced or bold; options of links override it",
            none="the model's own",
        ),
    ]
    chain: Annotated[
        Sequence[str] | None,
        Option("the names of links, in order", none="the model's own"),
        Flag(type=str | None, help="links in order, with commas. Default: the model's own", read=split_names),
        NO_FIELD,
    ]
    params: Annotated[
        Mapping[str, object] | None, Option("parameters of links, as ``{'LINK.PARAM': ...}``"), NO_FLAG, NO_FIELD
    ]


class StopArguments(TypedDict, total=False):
    """What ends texts, which records do without."""

    stop: Annotated[
        Sequence[str],
        Option("each text ends before the first of these that it would contain", ()),
        Flag(
            type=list[str],
            help="each text ends before this string, such as '\\n\\n'; may be repeated",
            read=lambda texts: [decode_escapes(text) for text in texts],
        ),
        Field(type=list[str]),
    ]


class LengthArguments(TypedDict, total=False):
    """How long texts are. Records have another default."""

    length: Annotated[
        int | None,
        Option("new characters of each text, at most", 500, 1, none="without end"),
        Flag(
            help="new characters; 0 writes without end. Default: 500; for records, at most twice the longest one",
            default=None,
            least=0,
        ),
        Field(
            "max_tokens", int, 16, "new characters of each text, at most; 0 with ``echo`` alone", 0, in_session=False
        ),
    ]


class TextArguments(LengthArguments, WriterArguments, StopArguments, total=False):
    """What `TextModel.write` takes besides parameters of links."""

    stream: Annotated[
        int,
        Option(
            "which stream of the seed the first text uses; the next texts use the next streams",
            0,
            0,
            SEED_LIMIT - 1,
        ),
        NO_FLAG,
        NO_FIELD,
    ]


class ScoredTextArguments(TextArguments, total=False):
    """What `TextModel.stream` takes besides parameters of links."""

    top_logprobs: Annotated[
        int,
        Option(
            "log-probabilities of this many of the most probable symbols in each place: the model's, before "
            "temperature and other links",
            0,
            0,
            MAX_TOP_LOGPROBS,
        ),
        NO_FLAG,
        Field("logprobs", int | None, None, most=MAX_TOP_LOGPROBS),
    ]
    echo: Annotated[
        bool,
        Option("whether the texts have the log-probabilities of their primes; ``length`` may then be 0", False),
        NO_FLAG,
        Field(
            help="whether a choice begins with its prompt; with ``top_logprobs`` its symbols have log-probabilities "
            "too. That of the first symbol is null"
        ),
    ]


class ManyTextsArguments(ScoredTextArguments, total=False):
    """What `TextModel.write_many` takes besides parameters of links."""

    count: Annotated[
        int,
        Option("how many texts to write for each ``prime``, all from one seed", 1),
        Flag(help="how many texts or records to write, all from one seed"),
        Field("n", least=1),
    ]


class WritingOptions(ManyTextsArguments, total=False):
    """The options of a request, besides the primes. `gentext.requests.options.writing_options` returns complete ones.

    Text i of prime j is written with stream ``stream + count * j + i`` of the seed.
    """

    parameters: Annotated[
        Mapping[str, object],
        Option("everything that sets parameters of links: see `gentext.requests.parameters.choose_chain`", {}),
    ]
    continues: Annotated[
        bool, Option("whether the texts continue others, as a record does that may end at once", False)
    ]


class RecordsOwnArguments(TypedDict, total=False):
    """What only records have. `gentext.cli.sample_flags` has flags where a command line has another type."""

    length: Annotated[
        int | None,
        Option("characters after the ``prefix``, at most", None, 1, none="twice those of the longest training record"),
        NO_FLAG,
    ]
    prefix: Annotated[str, Option("what each record begins with", ""), NO_FLAG]
    prefixes: Annotated[
        Sequence[str] | None,
        Option("beginnings, in place of ``prefix``, with the same number of records for each"),
        NO_FLAG,
    ]
    fields: Annotated[
        Mapping[str, str] | None, Option("leading columns of rows of a table, in place of ``prefix``"), NO_FLAG
    ]
    unique: Annotated[bool, Option("records: write equal ones only once", False)]
    novel: Annotated[
        bool | str | os.PathLike[str],
        Option(
            "whether to leave out training records; or the run, or the file of hashes, whose records to leave out",
            False,
        ),
        Flag(["--novel"], bool, "records: write none that the model has learned from"),
    ]
    accept: Annotated[
        str | None, Option("records: keep those that match this regular expression as a whole"), Flag(metavar="REGEX")
    ]
    filters: Annotated[
        Sequence[str | Filter],
        Option("names of filters, or functions that return which of several texts may stay", ()),
        NO_FLAG,
    ]
    filter_options: Annotated[
        Mapping[str, Mapping[str, object]] | None, Option("the options of named filters, by their names"), NO_FLAG
    ]
    max_tries: Annotated[int, Option("records: how often to try for each record, at most", 1000)]
    shard: Annotated[tuple[int, int], Option("``(i, n)``: write numbers i, i + n, i + 2n, ... alone", (0, 1)), NO_FLAG]
    ordered: Annotated[
        bool,
        Option("whether records come in order; otherwise each comes as soon as it ends", True),
        Flag(["--unordered"], help="records: write each as soon as it ends"),
    ]
    slots: Annotated[int | None, Option("records to write side by side", none="as many as are fast")]


class RecordArguments(WriterArguments, RecordsOwnArguments, total=False):
    """What `TextModel.records` takes besides the number of records and parameters of links."""


class SearchArguments(MatchArguments, StopArguments, total=False):
    """What a search for the most probable texts can ask for, besides the prime."""

    count: Annotated[int, Option("how many texts", 10, 1, MAX_TEXTS)]
    length: Annotated[
        int | None,
        Option(
            "new characters of each text, at most",
            None,
            1,
            MAX_SEARCH_LENGTH,
            f"{DEFAULT_SEARCH_LENGTH}; of records, the longest in training",
        ),
    ]
    temperature: Annotated[float, Option("divides the logits; 1: the model's own probabilities", 1.0)]
    beam: Annotated[
        int | None,
        Option("keep only this many beginnings of each length: quick, but not exact", None, 1, MAX_TEXTS, "all"),
    ]
    memory: Annotated[int, Option("megabytes that the search may use", 1000, 1, MAX_MEGABYTES), NO_FIELD]
