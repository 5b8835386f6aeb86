"""``gen export``: a run to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gentext.console import say
from gentext.errors import MissingExtra, RunError
from gentext.run import open_run


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write to. Default: the run's own.")
    ] = None,
) -> None:
    """Export a run's best checkpoint to model.onnx, and check it against PyTorch."""
    source = open_run(run)
    try:
        from gentext.export.model import export_run
    except ModuleNotFoundError:
        raise MissingExtra("gen export", "train") from None
    folder = output or source.path
    if folder.exists() and not folder.is_dir():
        raise RunError(f"-o {folder} is a file; expected a folder to write model.onnx to")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"-o {folder}: cannot be made ({error.strerror}); name another folder") from None
    say(export_run(source, folder))
