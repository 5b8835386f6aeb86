"""``gen distill``: a small model learns from a trained one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gentext.errors import UsageError
from gentext.plugins.trainers.commands import train_and_report
from gentext.runs.completion import complete_presets, complete_runs
from gentext.runs.resolve import DEFAULT_PRESET, TrainOptions, collect_flags, preset_names
from gentext.training.train import initial_weights_loader, student_settings


def distill(
    teacher: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN", help="Folder of the trained, exported run to learn from.", autocompletion=complete_runs
        ),
    ] = None,
    hidden: Annotated[int | None, typer.Option(help="Units of each layer: model.hidden.")] = None,
    soft: Annotated[
        float | None,
        typer.Option(help="Share of the loss against the teacher's probabilities, not the text: trainer.soft."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Temperature of these probabilities: trainer.temperature.")
    ] = None,
    real: Annotated[
        float | None, typer.Option(help="Share of the rows that read the teacher's own text: batcher.real.")
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
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as model.layers=1."),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Budget: times the length of the teacher's text.")] = None,
    steps: Annotated[int | None, typer.Option(help="Budget: optimizer steps.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Budget: minutes of training.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random, the written text too.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped or killed.")] = False,
    init_from: Annotated[
        Path | None, typer.Option(help="Begin with the weights of this run.", autocompletion=complete_runs)
    ] = None,
    no_export: Annotated[bool, typer.Option("--no-export", help="Write no model.onnx at the end.")] = False,
    export_precision: Annotated[
        str | None, typer.Option(help="Arithmetic of generator.onnx: auto, fp32 or int8.")
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write event files into RUN/tensorboard.")] = False,
) -> None:
    """Train a small model on what a trained one writes, and on its probabilities, and export it."""
    if teacher is None and not resume:
        raise UsageError("expected the folder of a trained run to learn from: gen distill RUN")
    options = TrainOptions(
        run=run,
        preset=preset,
        config=config,
        settings=[
            *(settings or []),
            *student_settings(hidden=hidden, soft=soft, temperature=temperature, real=real),
        ],
        flags=collect_flags(
            epochs=epochs,
            steps=steps,
            minutes=minutes,
            device=device,
            precision=precision,
            seed=seed,
            export=False if no_export else None,
            export_precision=export_precision,
            tensorboard=tensorboard or None,
        ),
        resume=resume,
        initial_weights=initial_weights_loader(init_from),
        teacher=teacher,
    )
    train_and_report(options)
