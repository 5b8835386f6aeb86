"""``gen export``: exports a run to ONNX."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from gentext.cli.links import split_names
from gentext.completion import complete_runs
from gentext.config import build_config
from gentext.console import say
from gentext.errors import MissingExtra, RunError, UsageError
from gentext.run import open_run
from gentext.settings import Settings
from gentext.source import find_source


def export(
    run: Annotated[
        Path | None, typer.Argument(help="Folder of a run. Default: the newest run.", autocompletion=complete_runs)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write to. Default: the run's own.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Arithmetic of the generator: auto (int8 unless its loss is above the limit), fp32, int8, fp16, or "
            "fastest (measured here). Default: the run's export_precision.",
            show_default=False,
        ),
    ] = None,
    chain: Annotated[str | None, typer.Option(help="Links of the generator, with commas. Default: the run's.")] = None,
    limit: Annotated[
        float | None,
        typer.Option(help="Nats a symbol that a lower precision may cost. Default: 0.002 with auto, else 0.005."),
    ] = None,
    unroll: Annotated[
        int, typer.Option(help="For CUDA: also write generator-unrolled.onnx, with so many positions a launch.")
    ] = 0,
) -> None:
    """Export a run's best checkpoint to model.onnx and generator.onnx, and check them against PyTorch."""
    if run is None:
        run = find_source(None, opens=["run"])
    source = open_run(run)
    try:
        from gentext.export.exporter import ExportOptions, export_run, options_of_run
        from gentext.export.precision import CUDA_PRECISIONS, PRECISIONS
        from gentext.plugins.samplers.session import MAX_UNROLLED_POSITIONS
    except ModuleNotFoundError:
        raise MissingExtra("gen export", "train") from None
    choices = ("auto", *PRECISIONS, *CUDA_PRECISIONS, "fastest")
    if precision is not None and precision not in choices:
        raise UsageError(f"--precision {precision}: expected {', '.join(choices[:-1])} or {choices[-1]}")
    if unroll and precision == "int8":
        raise UsageError("--unroll with int8: CUDA has no such integer products in onnxruntime; take fp32 or fp16")
    if limit is not None and not limit >= 0:
        raise UsageError(f"--limit {limit}: expected 0 or more nats a symbol")
    if not 0 <= unroll <= MAX_UNROLLED_POSITIONS:
        raise UsageError(f"--unroll {unroll}: expected 1 to {MAX_UNROLLED_POSITIONS} positions, or 0 for no such file")
    folder = output or source.path
    if folder.exists() and not folder.is_dir():
        raise RunError(f"-o {folder} is a file; expected a folder to write model.onnx to")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"-o {folder}: cannot be made ({error.strerror}); name another folder") from None
    if precision is None:
        options = options_of_run(build_config(Settings, source.config.get("run", {}), "run"), unroll)
    else:
        options = ExportOptions(precision, unroll=unroll)
    options = dataclasses.replace(options, chain=split_names(chain), limit=options.limit if limit is None else limit)
    for line in export_run(source, folder, options):
        say(line)
