"""``gen export``: exports a run to ONNX."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from gentext.arguments import split_names
from gentext.config import build_config
from gentext.console import say, warn
from gentext.errors import MissingExtra, RunError, UsageError
from gentext.exported.metadata import METADATA_PREFIX
from gentext.exported.onnx_file import check_same_export, read_metadata
from gentext.files.folders import temporary_folder
from gentext.run import GENERATOR_FILE, open_run
from gentext.runs.completion import complete_runs
from gentext.runs.source import find_source
from gentext.settings import Settings


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
        int,
        typer.Option(help="For CUDA: also write generator-unrolled.onnx, which computes this many positions a launch."),
    ] = 0,
    web: Annotated[
        Path | None,
        typer.Option(
            help="Write a folder with a page instead, on which the model writes in any browser. RUN may be a file."
        ),
    ] = None,
    ort_web: Annotated[
        Path | None,
        typer.Option(help="With --web: a copy of the npm package onnxruntime-web. Default: npm fetches it."),
    ] = None,
) -> None:
    """Export a run's best checkpoint to model.onnx and generator.onnx, and check them against PyTorch."""
    if web is not None:
        _export_web(run, web, ort_web, precision, chain, limit, other_options=bool(output or unroll))
        return
    if ort_web is not None:
        raise UsageError("--ort-web: expected --web with it")
    if run is None:
        run = find_source(None, opens=["run"])
    source = open_run(run)
    try:
        from gentext.export.exporter import export_run
        from gentext.export.job import ExportOptions, options_of_run
        from gentext.plugins.samplers.session import MAX_UNROLLED_POSITIONS
    except ModuleNotFoundError:
        raise MissingExtra("gen export", "train") from None
    if precision is None:
        options = options_of_run(build_config(Settings, source.config.get("run", {}), "run"), unroll)
    else:
        options = ExportOptions(precision, unroll=unroll)
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
    options = dataclasses.replace(options, chain=split_names(chain), limit=options.limit if limit is None else limit)
    for line in export_run(source, folder, options).lines:
        say(line)


def _export_web(
    path: Path | None,
    folder: Path,
    ort_web: Path | None,
    precision: str | None,
    chain: str | None,
    limit: float | None,
    *,
    other_options: bool,
) -> None:
    """Write the folder of ``--web``: with the generator of a file, or of a run in one precision."""
    from gentext.export.web import WEB_PRECISION, export_web

    if other_options:
        raise UsageError("--web: expected neither --output nor --unroll with it")
    if precision not in (None, "fp32", "int8"):
        raise UsageError(f"--precision {precision}: expected fp32 or int8 with --web")
    source = find_source(path, opens=["run", "onnx file"])
    if source.is_file() and (precision or chain or limit is not None):
        raise UsageError(f"--web with the file {source}: expected no --precision, --chain or --limit; name a run")

    with contextlib.ExitStack() as stack:

        def find_generator() -> Path:
            wanted_precision = precision or WEB_PRECISION
            if source.is_file():
                return source
            if chain is None and _read_precision(source / GENERATOR_FILE) == wanted_precision:
                check_same_export(source)
                return source / GENERATOR_FILE
            try:
                from gentext.export.exporter import export_run
                from gentext.export.job import ExportOptions
            except ModuleNotFoundError:
                is_free = precision is None and chain is None and limit is None
                if is_free and (source / GENERATOR_FILE).is_file():
                    check_same_export(source)
                    warn(f"the run's own generator is taken, as exporting it in {WEB_PRECISION} needs the extra train")
                    return source / GENERATOR_FILE
                raise MissingExtra(
                    f"gen export --web of a run without a generator in {wanted_precision}", "train"
                ) from None
            exported = stack.enter_context(temporary_folder())
            export_run(open_run(source), exported, ExportOptions(wanted_precision, split_names(chain), limit))
            return exported / GENERATOR_FILE

        for line in export_web(find_generator, folder, ort_web):
            say(line)


def _read_precision(generator: Path) -> str | None:
    """Return the precision of a run's generator; None where there is none that can be read."""
    try:
        card = json.loads(read_metadata(generator)[f"{METADATA_PREFIX}card"])
    except (OSError, ValueError, KeyError, RecursionError):
        return None
    return str(card.get("precision")) if isinstance(card, dict) else None
