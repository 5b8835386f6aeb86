"""The flags of ``gen sample`` that no other door has; those of requests are in `gentext.requests.declaration`."""

# The annotations are read when a command starts, so they are not turned into texts.
from pathlib import Path
from typing import Annotated, TypedDict

from gentext.arguments import Flag, Option
from gentext.runs.completion import complete_filters


class BeginningFlags(TypedDict, total=False):
    """What texts begin with."""

    prime: Annotated[str | None, Option("text to go on from")]
    prime_file: Annotated[str | None, Option("the same from a file, or from standard input with -")]


class RecordFlags(TypedDict, total=False):
    """Options of records as a command line has them, whose library takes others, and how records are written out."""

    novel_against: Annotated[
        Path | None, Option("records: none of another run, or training.hashes"), Flag(metavar="FILE")
    ]
    filter: Annotated[
        list[str],
        Option("records: throw away what a filter refuses; repeatable", ()),
        Flag(metavar="NAME", complete=complete_filters),
    ]
    shard: Annotated[str | None, Option("records: write the numbers that are I modulo N, from 0"), Flag(metavar="I/N")]
    prefix_file: Annotated[
        Path | None,
        Option("records: ``count`` of each line, or of each line of a .jsonl"),
        Flag(metavar="FILE"),
    ]
    field_values: Annotated[
        list[str],
        Option("records: a leading column of CSV rows", ()),
        Flag(["--given"], metavar="COLUMN=TEXT"),
    ]
    format: Annotated[str | None, Option("records: text, jsonl or csv")]
    fields: Annotated[str | None, Option("records as JSONL or CSV: also number, logprob, seed, stream, with commas")]
    resume: Annotated[bool, Option("records: go on with the file of -o", False)]


class OutputFlags(TypedDict, total=False):
    """Where texts go, and how they look there."""

    separator: Annotated[
        str | None,
        Option("what to print between two texts, such as '\\0', and nothing else", none="a line %%%"),
    ]
    output: Annotated[Path | None, Option("write into this file"), Flag(["--output", "-o"])]
    interactive: Annotated[bool, Option("write in turns with the model: type, Tab goes on", False)]
    as_json: Annotated[bool, Option("one JSON object a text", False), Flag(["--json"])]
    no_stream: Annotated[bool, Option("print when all is written", False)]
    raw: Annotated[bool, Option("send control characters to the terminal as they are", False)]
    show_chain: Annotated[bool, Option("say which links run, with their values", False)]


#: The order of the help. A flag that is not named here comes behind these.
HELP_ORDER = (
    *("source", "prime", "prime_file", "length", "count", "separator", "seed", "stop", "match", "json_schema"),
    *("match_prime", "unique", "novel", "novel_against", "accept", "filter", "max_tries", "shard", "ordered"),
    *("prefix_file", "field_values", "format", "fields", "output", "resume", "slots", "style", "chain", "unknown"),
    *("sampler", "settings", "device", "threads", "verify", "interactive", "as_json", "no_stream", "raw"),
    "show_chain",
)
