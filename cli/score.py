"""``gen score``: the log-probability of each record, line or text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gentext.arguments import with_flags
from gentext.cli.links import FlagSpelling
from gentext.library.declaration import OPEN_DEFAULTS, ThreadedFileArguments
from gentext.library.loading import open_from_arguments
from gentext.runs.completion import complete_models
from gentext.settings import check_threads


@with_flags
def score(
    source: Annotated[
        Path, typer.Argument(metavar="RUN | FILE.onnx", help="The model that scores.", autocompletion=complete_models)
    ],
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Texts to score; - for standard input.")],
    records: Annotated[
        str | None, typer.Option(metavar="LAYOUT", help="How the files hold records: lines, blank, jsonl:FIELD, ...")
    ] = None,
    symbols: Annotated[bool, typer.Option("--symbols", help="Write a row for each symbol.")] = False,
    no_text: Annotated[bool, typer.Option("--no-text", help="Leave the text out of the rows.")] = False,
    against: Annotated[
        Path | None, typer.Option(metavar="RUN", help="A second model: rows also have the ratio of both probabilities.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip broken records, and count them.")] = False,
    unknown: Annotated[
        str, typer.Option(help="What to do about characters that the model does not know: error or skip.")
    ] = "error",
    table_format: Annotated[str, typer.Option("--format", help="jsonl, csv or parquet.")] = "jsonl",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file.")] = None,
    *,
    threads: Annotated[int, typer.Option(help="Threads. Default: one for each core.")] = 0,
    opening: ThreadedFileArguments,
) -> None:
    """Write the log-probability of each record of the files, in order. A model of one text scores each file whole.

    The memory it takes does not grow with the number of records.
    """
    from gentext.scoring.score_files import ScoreOptions, Scoring
    from gentext.scoring.score_tables import check_output, make_writer, open_output

    check_output(output, table_format)
    check_threads(threads)
    paths = [source] if against is None else [source, against]
    models = [open_from_arguments(path, {**OPEN_DEFAULTS, **opening}) for path in paths]
    options = ScoreOptions(records, symbols, not no_text, skip_bad, unknown)
    scoring = Scoring([model.whole_sequence_sampler() for model in models], options, FlagSpelling(), threads)
    with open_output(output) as file:
        writer = make_writer(table_format, file, scoring.columns)
        for rows in scoring.rows(files):
            writer.write(rows)
            file.flush()
        writer.close()
