"""``gen train``: learn from a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gentext.plugins.trainers.commands import train_and_report
from gentext.runs.completion import complete_corpora, complete_presets, complete_runs
from gentext.runs.record_options import LAYOUTS, collect_options
from gentext.runs.resolve import DEFAULT_PRESET, TrainOptions, collect_flags, preset_names
from gentext.training.pipeline import DEFAULT_CORPUS
from gentext.training.train import initial_weights_loader


def train(
    corpus: Annotated[
        str | None,
        typer.Argument(
            help=f"A file, a folder, -, or a name from `gen corpora`. Default: {DEFAULT_CORPUS}.",
            autocompletion=complete_corpora,
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run. Default: a new one in runs/.", autocompletion=complete_runs)
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(preset_names())}. Default: {DEFAULT_PRESET}.",
            show_default=False,
            autocompletion=complete_presets,
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file, over the preset.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as model.hidden=256."),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Budget: passes over the training text.")] = None,
    steps: Annotated[int | None, typer.Option(help="Budget: optimizer steps.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Budget: minutes of training.")] = None,
    records: Annotated[
        str | None,
        typer.Option(metavar="LAYOUT", help=f"Learn records: {', '.join(LAYOUTS)}. Default: one text."),
    ] = None,
    val: Annotated[
        str | None, typer.Option(metavar="FILE", help="Hold out this, and learn from all of CORPUS.")
    ] = None,
    val_frac: Annotated[
        float | None, typer.Option(help="Share that is held out: the text's tail, or records by their hash.")
    ] = None,
    dedup: Annotated[bool, typer.Option("--dedup", help="Learn each of equal records once.")] = False,
    weight: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="How many times each record counts (jsonl, csv).")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out broken records, and count them.")] = False,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped or killed.")] = False,
    init_from: Annotated[
        Path | None, typer.Option(help="Begin with the weights of this run.", autocompletion=complete_runs)
    ] = None,
    no_export: Annotated[bool, typer.Option("--no-export", help="Write no model.onnx at the end.")] = False,
    export_precision: Annotated[
        str | None,
        typer.Option(help="Arithmetic of generator.onnx: auto (int8 unless its loss is too high), fp32 or int8."),
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write event files into RUN/tensorboard.")] = False,
) -> None:
    """Train a model on a text, or on records, and export it.

    Without arguments it learns from the Python language reference that every Python carries.
    """
    flags = collect_flags(
        epochs=epochs,
        steps=steps,
        minutes=minutes,
        val_frac=val_frac,
        device=device,
        precision=precision,
        seed=seed,
        export=False if no_export else None,
        export_precision=export_precision,
        tensorboard=tensorboard or None,
    )
    options = TrainOptions(
        corpus=corpus,
        run=run,
        preset=preset,
        config=config,
        settings=settings or [],
        flags=flags,
        records=collect_options(records, dedup=dedup, weight=weight, skip_bad=skip_bad),
        val=val,
        resume=resume,
        initial_weights=initial_weights_loader(init_from),
    )
    train_and_report(options)
