"""The flags that only ``gen sample`` has; those of requests are in `gentext.requests.declaration`."""

# The annotations are read when a command starts, so they are not turned into texts.
from pathlib import Path
from typing import Annotated, TypedDict

from gentext.arguments import Flag, Option
from gentext.runs.completion import complete_filters


class BeginningFlags(TypedDict, total=False):
    """What texts start from."""

    prime: Annotated[str | None, Option("text to go on from")]
    prime_file: Annotated[str | None, Option("read the prime from a file; - reads standard input")]


class RecordFlags(TypedDict, total=False):
    """Options of records as a command line has them, whose library takes others, and how records are written out."""

    novel_against: Annotated[
        Path | None,
        Option("records: write none that another run has learned from (its folder, or training.hashes)"),
        Flag(metavar="FILE"),
    ]
    filter: Annotated[
        list[str],
        Option("records: throw away what this filter refuses; may be repeated", ()),
        Flag(metavar="NAME", complete=complete_filters),
    ]
    shard: Annotated[
        str | None, Option("records: write numbers I, I + N, I + 2N, ... alone; I begins at 0"), Flag(metavar="I/N")
    ]
    prefix_file: Annotated[
        Path | None,
        Option("records: write ``count`` for each line, or for each line of a .jsonl"),
        Flag(metavar="FILE"),
    ]
    field_values: Annotated[
        list[str],
        Option("records: the value of a leading column of CSV rows", ()),
        Flag(["--given"], metavar="COLUMN=TEXT"),
    ]
    format: Annotated[str | None, Option("records: how to write them: text, jsonl or csv")]
    fields: Annotated[
        str | None, Option("records as JSONL or CSV: more fields: number, logprob, seed, stream, with commas")
    ]
    resume: Annotated[bool, Option("records: continue the file of -o", False)]


class OutputFlags(TypedDict, total=False):
    """Where texts go, and in which form."""

    separator: Annotated[
        str | None,
        Option("what to print between two texts, such as '\\0'", none="a line %%%"),
    ]
    output: Annotated[Path | None, Option("write to this file"), Flag(["--output", "-o"])]
    interactive: Annotated[bool, Option("write in turns with the model: type, then press Tab, and it goes on", False)]
    as_json: Annotated[bool, Option("print one JSON object a text", False), Flag(["--json"])]
    no_stream: Annotated[bool, Option("print the text when it is complete", False)]
    raw: Annotated[bool, Option("send control characters to the terminal as they are", False)]
    show_chain: Annotated[bool, Option("print which links run, with their values", False)]


#: The order of the help. A flag that is not named here comes behind these.
HELP_ORDER = (
    *("source", "prime", "prime_file", "length", "count", "separator", "seed", "stop", "match", "json_schema"),
    *("match_prime", "unique", "novel", "novel_against", "accept", "filter", "max_tries", "shard", "ordered"),
    *("prefix_file", "field_values", "format", "fields", "output", "resume", "slots", "style", "chain", "unknown"),
    *("sampler", "settings", "device", "threads", "verify", "interactive", "as_json", "no_stream", "raw"),
    "show_chain",
)
