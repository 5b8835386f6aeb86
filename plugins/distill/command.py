"""``gen distill``: a small model learns from a trained one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gentext.arguments import with_flags
from gentext.errors import UsageError
from gentext.plugins.trainers.commands import SettingTexts, train_and_report
from gentext.runs.completion import complete_runs
from gentext.training.declaration import DistillArguments
from gentext.training.options import student_options


@with_flags
def distill(
    teacher: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN", help="Folder of the trained, exported run to learn from.", autocompletion=complete_runs
        ),
    ] = None,
    *,
    settings: SettingTexts = None,
    arguments: DistillArguments,
) -> None:
    """Train a small model on what a trained one writes, and on its probabilities, and export it."""
    if teacher is None and not arguments["resume"]:
        raise UsageError("expected the folder of a trained run to learn from: gen distill RUN")
    train_and_report(student_options(arguments, settings or [], teacher))
