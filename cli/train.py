"""``gen train``: learn from a text."""

from __future__ import annotations

from typing import Annotated

import typer

from gentext.arguments import with_flags
from gentext.plugins.trainers.commands import SettingTexts, train_and_report
from gentext.runs.completion import complete_corpora
from gentext.training.declaration import TrainArguments
from gentext.training.options import train_options
from gentext.training.pipeline import DEFAULT_CORPUS


@with_flags
def train(
    corpus: Annotated[
        str | None,
        typer.Argument(
            help=f"A file, a folder, -, or a name from `gen corpora`. Default: {DEFAULT_CORPUS}.",
            autocompletion=complete_corpora,
        ),
    ] = None,
    *,
    settings: SettingTexts = None,
    arguments: TrainArguments,
) -> None:
    """Train a model on a text, or on records, and export it.

    Without arguments it learns from python-help: what Python's help() prints.
    """
    train_and_report(train_options(arguments, settings or [], corpus=corpus))
