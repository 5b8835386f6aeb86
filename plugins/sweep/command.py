"""``gen sweep``: train many times with other settings, and keep the best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gentext.advice import after_training
from gentext.console import say
from gentext.errors import GenError, MissingExtra
from gentext.pipeline import DEFAULT_CORPUS
from gentext.resolve import DEFAULT_PRESET, TrainOptions, presets
from gentext.run import Run


def sweep(
    corpus: Annotated[
        str | None, typer.Argument(help=f"A file, a folder, or a name from `gen corpora`. Default: {DEFAULT_CORPUS}.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--sweep", metavar="DIR", help="Folder of the sweep. Default: a new one in sweeps/.")
    ] = None,
    space: Annotated[Path | None, typer.Option(help="A TOML file: what to try. Default: the built-in space.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="How many settings to try. Default: 20.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help=f"What the trials share: {', '.join(presets())}. Default: {DEFAULT_PRESET}."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file, over the preset.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting of all trials, such as trainer.patience=3."),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Budget of a trial: passes over the training text.")] = None,
    steps: Annotated[int | None, typer.Option(help="Budget of a trial: optimizer steps.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Budget of a trial: minutes of training.")] = None,
    val_frac: Annotated[float | None, typer.Option(help="Share of the text's tail that is held out.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random, the trials' settings too.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a sweep, or help a process that is at it.")
    ] = False,
    no_prune: Annotated[bool, typer.Option("--no-prune", help="Train the hopeless ones to their end too.")] = False,
    no_export: Annotated[bool, typer.Option("--no-export", help="Write no model.onnx of the best run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The table as JSON.")] = False,
) -> None:
    """Train many times with other settings, and keep the run with the lowest held-out loss.

    What is tried comes from a TOML file, or from the built-in space: sizes, layers, dropout, batches and rates.
    """
    flags: dict[str, Any] = {"epochs": epochs, "steps": steps, "minutes": minutes, "val_frac": val_frac}
    flags |= {"device": device, "precision": precision, "seed": seed}
    flags = {key: value for key, value in flags.items() if value is not None}
    shared = TrainOptions(corpus, None, preset, config, settings or [], flags)
    try:
        from gentext.plugins.sweep.report import summary, text
        from gentext.plugins.sweep.start import SweepOptions, start
    except ModuleNotFoundError as error:
        raise MissingExtra("gen sweep", "train,sweep" if error.name == "tomli_w" else "sweep") from None
    doing = start(SweepOptions(shared, folder, space, trials, not no_prune, resume))
    doing.work()
    rows = doing.write()
    print(json.dumps(summary(doing.folder, doing.facts.corpus, rows), indent=1) if as_json else text(doing.space, rows))
    running = sum(row.state == "running" for row in rows)
    if running:
        say(f"{running} trials are still at work in another process; the process that ends last keeps the best")
        return
    if rows[0].state != "finished":
        raise GenError(f"no trial was finished; see {doing.folder / 'sweep.csv'} for the reasons")
    best = doing.keep_best(rows[0], (lambda run: None) if no_export else _export)
    told = rows[0].facts["train_loss"], rows[0].val_loss or 0.0, rows[0].facts["best_step"], rows[0].facts["steps"]
    for line in after_training(*told, best.config.get("model", {})):
        say(line)
    say(f"the best is trial {rows[0].number}; table and picture are in {doing.folder}")
    say(f"next: gen {'export' if no_export else 'sample'} {best.path}")


def _export(run: Run) -> None:
    from gentext.export.exporter import ExportOptions, export_run

    for line in export_run(run, run.path, ExportOptions(generator_required=False)):
        say(line)
